"""Faults that are injected into runs, and what each run has to make of it."""
