"""Comparisons of equilibrium networks with recorded values run again with f as compiled code."""

from __future__ import annotations

from typing import Any

import pytest

from equipoise.equilibrium import Equilibrium


@pytest.fixture(
    params=[False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["plain", "compiled"],
)
def compiles_f(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every layer that the test makes compile its f, as `compile=cell` does."""
    if not request.param:
        return
    plain = Equilibrium.__init__

    def compiling(self: Equilibrium, *arguments: Any, **settings: Any) -> None:
        plain(self, *arguments, **settings)
        self.compiles_f = True

    monkeypatch.setattr(Equilibrium, "__init__", compiling)
