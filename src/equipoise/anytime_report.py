"""What the anytime curve leaves in the run's folder: a table and a picture."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from equipoise.anytime import Point
from equipoise.callbacks.report.budget_plot import BudgetPlot
from equipoise.callbacks.report.curve_file import Points
from equipoise.callbacks.report.page import Picture

CAPTION = "What each budget of evaluations gives on the test split; the tolerance is not used."


def write_table(points: Sequence[Point], path: Path) -> None:
    """Write a CSV file with a row for each point."""
    rows = [point.row() for point in points]
    with path.open("w", newline="") as file:
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
    """The name of the metric to show: the one that the run watched, else the first but the loss."""
    watched = (monitored or "").rpartition("/")[2]
    if watched in metrics:
        return watched
    return next((name for name in metrics if name != "loss"), "loss")


def line(point: Point, metric: str, number: int, total: int) -> str:
    """One point in words, for who waits."""
    residual = "-" if point.residual_median is None else f"{point.residual_median:.1e}"
    return (
        f"anytime {number}/{total}  budget {point.budget} from {point.start}  "
        f"{metric} {point.metrics.get(metric, float('nan')):.4g}  residual {residual}  "
        f"{point.seconds:.0f} s"
    )


def _line(points: Sequence[Point], start: str, value: Callable[[Point], float | None]) -> Points:
    """Budget and value of the points from one start that have a value."""
    pairs = [(point.budget, value(point)) for point in points if point.start == start]
    return tuple(sorted((budget, found) for budget, found in pairs if found is not None))
