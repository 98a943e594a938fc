"""The anytime curve in words, as a table and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.report.lines import Points
from equipoise.report.page import Picture
from equipoise.report.plot import COLOURS, FULL, logarithmic, new_figure, save, style
from equipoise.report.whole import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes


XLABEL = "evaluations of f"


CAPTION = "Test results at each budget of evaluations; the tolerance is not used."


@dataclass(frozen=True)
class Point:
    """The test results at one budget from one start.

    metrics: test metrics by name. nfe: evaluations per batch. residual_median, residual_p95: over
    the test samples, None where the estimator's own iteration measures none. alignment, distance:
    mean cosine and median relative distance between the solutions of the first test batch and
    those from the first start at the same budget; None for that start itself.
    """

    start: str
    budget: int
    metrics: Mapping[str, float]
    nfe: float
    residual_median: float | None
    residual_p95: float | None
    alignment: float | None
    distance: float | None
    seconds: float

    def row(self) -> dict[str, Any]:
        """The point as a row of a table."""
        values = {name: value for name, value in vars(self).items() if name != "metrics"}
        return {
            "start": values.pop("start"),
            "budget": values.pop("budget"),
            **self.metrics,
        } | values


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
        figure = new_figure(FULL, 3.8)
        left, right = figure.subplots(1, 2)
        words = self.metric.replace("_", " ")
        style(left, f"Test {words}", XLABEL, words)
        style(right, "Residual", XLABEL, f"median residual ({self.stop})")
        _draw(left, self.metrics)
        _draw(right, {start: _positive(points) for start, points in self.residuals.items()})
        logarithmic(right.yaxis)
        save(figure, path)


def _positive(points: Points) -> Points:
    """The points that a logarithmic axis can show."""
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


def write_table(points: Sequence[Point], path: Path) -> None:
    """Write a CSV file with a row for each point."""
    rows = [point.row() for point in points]
    with whole(path) as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def draw(points: Sequence[Point], metric: str, stop: str, folder: Path) -> Picture:
    """Write `anytime.png` into the folder and say what it shows."""
    starts = dict.fromkeys(point.start for point in points)
    plot = BudgetPlot(
        metric,
        {start: _line(points, start, lambda point: point.metrics.get(metric)) for start in starts},
        {start: _line(points, start, lambda point: point.residual_median) for start in starts},
        stop,
    )
    plot.draw(folder / "anytime.png")
    return Picture("anytime.png", CAPTION)


def shown_metric(metrics: Mapping[str, float], monitored: str | None) -> str:
    """The metric to show: the one the run monitored, else the first that is not the loss."""
    watched = (monitored or "").rpartition("/")[2]
    if watched in metrics:
        return watched
    return next((name for name in metrics if name != "loss"), "loss")


def line(point: Point, metric: str, number: int, total: int) -> str:
    """One point as a line of progress."""
    residual = "-" if point.residual_median is None else f"{point.residual_median:.1e}"
    return (
        f"anytime {number}/{total}  budget {point.budget} from {point.start}  "
        f"{metric} {point.metrics.get(metric, float('nan')):.4g}  residual {residual}  "
        f"{point.seconds:.0f} s"
    )


def _line(points: Sequence[Point], start: str, value_of: Callable[[Point], float | None]) -> Points:
    """Budget and value of the points from one start that have a value."""
    pairs = [(point.budget, value_of(point)) for point in points if point.start == start]
    return tuple(sorted((budget, value) for budget, value in pairs if value is not None))
