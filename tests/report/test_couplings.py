"""Predicted against true couplings, a panel for each type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equipoise.data.molecules.tables import TYPES
from equipoise.report import couplings
from equipoise.report.couplings import MOST_DOTS, draw_couplings


class Panels:
    """Keeps the axes that a figure had when it was saved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[Any] = []
        self.save = couplings.save
        monkeypatch.setattr(couplings, "save", self.keep)

    def keep(self, figure: Any, file: Path) -> None:
        self.shown = [axes for axes in figure.axes if axes.axison]
        self.save(figure, file)


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> Panels:
    return Panels(monkeypatch)


def drawn(folder: Path, kinds: list[int], predicted: Any = None) -> list[str]:
    kind = np.array(kinds, dtype=int)
    true = 10.0 * kind + np.arange(len(kind))
    found = draw_couplings(folder, true + 1 if predicted is None else predicted, true, kind, TYPES)
    assert all((folder / picture.file).is_file() for picture in found)
    return [picture.file for picture in found]


@pytest.mark.parametrize("kinds", [[1], [1, 1, 8], [3, 4, 3, 5, 7], list(range(1, 9))])
def test_each_type_that_occurs_has_a_panel(
    kinds: list[int], panels: Panels, tmp_path: Path
) -> None:
    assert drawn(tmp_path, kinds) == ["couplings.png"]
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in panels.shown]
    assert titles == [f"{TYPES[kind - 1]}: MAE 1 Hz" for kind in sorted(set(kinds))]
    for axes in panels.shown:
        (dots,) = axes.collections
        x, y = dots.get_offsets().T
        np.testing.assert_allclose(y, x + 1)
        assert axes.get_xlim() == axes.get_ylim()
        assert axes.get_xlim()[0] < x.min()
        assert axes.get_xlim()[1] > y.max()
    assert sum(len(axes.collections[0].get_offsets()) for axes in panels.shown) == len(kinds)


def test_no_couplings_are_no_picture(tmp_path: Path) -> None:
    assert drawn(tmp_path, []) == []
    assert not list(tmp_path.iterdir())


def test_of_very_many_couplings_some_are_shown_from_first_to_last(
    panels: Panels, tmp_path: Path
) -> None:
    count = 10 * MOST_DOTS
    drawn(tmp_path, [2] * count)
    (axes,) = panels.shown
    x = axes.collections[0].get_offsets()[:, 0]
    assert len(x) == MOST_DOTS
    assert x[[0, -1]].tolist() == [20, 20 + count - 1]


def test_a_panel_ends_at_numbers(panels: Panels, tmp_path: Path) -> None:
    drawn(tmp_path, [1, 1, 1, 2], np.array([9.0, np.nan, np.inf, -np.inf]))
    first, second = panels.shown
    assert -10 < first.get_xlim()[0] < 9
    assert np.isfinite([*first.get_xlim(), *second.get_xlim()]).all()
