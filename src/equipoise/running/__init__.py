"""Carry out one configuration; start at `api.run`, which builds (`build`) and trains (`run`)."""
