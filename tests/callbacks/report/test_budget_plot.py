"""The picture of the anytime curve."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.axes import Axes

from equipoise.callbacks.report import budget_plot
from equipoise.callbacks.report.budget_plot import BudgetPlot


def test_a_line_for_each_start_in_both_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Axes] = []
    monkeypatch.setattr(budget_plot, "style", lambda axes, *_: drawn.append(axes))
    plot = BudgetPlot(
        "accuracy",
        {"zero": ((4, 0.5), (8, 0.6)), "random": ((4, 0.3), (8, 0.6))},
        {"zero": ((4, 0.1), (8, 0.0)), "random": ((4, 0.2), (8, 0.01))},
        "relative",
    )
    plot.draw(tmp_path / "anytime.png")
    left, right = drawn
    assert [line.get_label() for line in left.lines] == ["from zero", "from random"]
    assert list(left.lines[1].get_ydata()) == [0.3, 0.6]
    assert list(right.lines[0].get_xdata()) == [4]  # zero has no place on a logarithmic axis
    assert right.get_yscale() == "log"
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["4", "8"]


def test_without_any_residual_there_is_still_a_picture(tmp_path: Path) -> None:
    BudgetPlot("loss", {"zero": ((4, 0.5),)}, {"zero": ()}, "").draw(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
