"""The picture of what a network reaches with how many evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.callbacks.report.curve_file import Points
from equipoise.callbacks.report.plot import COLOURS, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

XLABEL = "evaluations of f"


@dataclass(frozen=True)
class BudgetPlot:
    """A metric and the residual against the budget, side by side, a line for each start.

    metric: its name; metrics, residuals: (budget, value) pairs by start; stop: how the residual is
    measured.
    """

    metric: str
    metrics: Mapping[str, Points]
    residuals: Mapping[str, Points]
    stop: str

    def draw(self, path: Path) -> None:
        """Write the PNG file."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.6, 3.8), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        words = self.metric.replace("_", " ")
        style(left, f"Test {words}", XLABEL, words)
        style(right, "Residual", XLABEL, f"median residual ({self.stop})")
        _draw(left, self.metrics)
        _draw(right, {start: _positive(points) for start, points in self.residuals.items()})
        right.set_yscale("log")
        save(figure, path)


def _positive(points: Points) -> Points:
    """The points that a logarithmic axis has a place for."""
    return tuple(point for point in points if point[1] > 0)


def _draw(axes: Axes, lines: Mapping[str, Points]) -> None:
    drawn = {start: points for start, points in lines.items() if points}
    for (start, points), colour, marker in zip(drawn.items(), COLOURS, "os^dvx", strict=False):
        budgets, values = zip(*points, strict=True)
        label = f"from {start}"
        axes.plot(budgets, values, color=colour, marker=marker, markersize=4, label=label)
    ticks = sorted({budget for points in drawn.values() for budget, _ in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    if drawn:
        axes.legend(loc="best", edgecolor="none", framealpha=0.85)
