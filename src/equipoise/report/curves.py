"""The curve of a run, read back from metrics.csv, and the pictures that it gives."""

from __future__ import annotations

import csv
import math
from itertools import groupby
from pathlib import Path

from equipoise.report.plot import Plot, Points, Span


class CurveFile:
    """The columns of a metrics.csv; a file that does not exist has none."""

    def __init__(self, path: Path | None) -> None:
        self.rows: list[dict[str, str]] = []
        if path is not None and path.is_file():
            with path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))

    def columns(self) -> list[str]:
        """Return the names of the columns."""
        return list(self.rows[0]) if self.rows else []

    def points(self, column: str) -> Points:
        """Return the finite values of a column with their steps."""
        filled = [(row["step"], row[column]) for row in self.rows if row.get(column)]
        pairs = [(float(step), float(value)) for step, value in filled]
        return tuple(sorted(pair for pair in pairs if math.isfinite(pair[1])))

    def gradient_spans(self) -> tuple[Span, ...]:
        """Return the phases of the gradient estimator; none where it never changed."""
        named = [(float(row["step"]), row["gradient"]) for row in self.rows if row.get("gradient")]
        spans, start = [], 0.0
        for name, group in groupby(named, key=lambda pair: pair[1]):
            last = list(group)[-1][0]
            spans.append(Span(name, start, last))
            start = last
        return tuple(spans) if len(spans) > 1 else ()


RESIDUALS = {
    "solver/residual_median": "forward, median",
    "solver/residual_p95": "forward, 95th percentile",
    "backward/residual_median": "backward, median",
}
EVALUATIONS = {
    "solver/nfe": "forward: f",
    "backward/nfe": "backward: products with the Jacobian",
}
FIDELITY = {
    "fidelity/cosine": "cosine of the angle",
    "fidelity/norm_ratio": "ratio of the norms",
}
CONVERGED = {"solver/converged_fraction": "converged"}


def plots(curve: CurveFile, tolerance: float | None, stop: str = "") -> list[Plot]:
    """Return a picture of each training metric, of the solvers and of the learning rate.

    tolerance and stop are those of the forward solver, None and "" without one.
    """
    spans = curve.gradient_spans()
    level = ("tolerance", tolerance) if tolerance else None
    candidates = [
        *(_metric(curve, name, spans) for name in _metrics(curve)),
        Plot(
            "residual",
            "Residual of the solves",
            "How far from the equilibrium the solvers stopped.",
            f"residual ({stop})" if stop else "residual",
            _lines(curve, RESIDUALS, positive=True),
            spans,
            logarithmic=True,
            level=level,
        ),
        Plot(
            "nfe",
            "Function evaluations",
            "Evaluations that a batch took: the price of the equilibrium.",
            "evaluations per batch",
            _lines(curve, EVALUATIONS),
            spans,
        ),
        Plot(
            "converged",
            "Converged samples",
            "Share of the training samples whose solve reached the tolerance.",
            "fraction of samples",
            _lines(curve, CONVERGED),
            spans,
        ),
        Plot(
            "fidelity",
            "Gradient fidelity",
            "The gradient of the estimator in force against the exact one; both are 1 at best.",
            "estimated to exact",
            _lines(curve, FIDELITY),
            spans,
        ),
        Plot(
            "learning_rate",
            "Learning rate",
            "As the schedule set it.",
            "learning rate",
            _lines(curve, {c: c.removeprefix("lr-") for c in curve.columns() if c[:3] == "lr-"}),
            spans,
        ),
    ]
    return [plot for plot in candidates if plot.lines]


def _metrics(curve: CurveFile) -> list[str]:
    """Return the names behind "train/" and "val/", the loss first."""
    stages = ("train/", "val/")
    names = {c.split("/", 1)[1] for c in curve.columns() if c.startswith(stages)}
    return sorted(names - {"skipped_steps"}, key=lambda name: (name != "loss", name))


def _metric(curve: CurveFile, name: str, spans: tuple[Span, ...]) -> Plot:
    words = name.replace("_", " ").replace("/", " ")
    lines = _lines(curve, {f"train/{name}": "training", f"val/{name}": "validation"})
    values = [value for _, points in lines for _, value in points]
    wide = name == "loss" and bool(values) and min(values) > 0 and max(values) > 20 * min(values)
    caption = f"{words.capitalize()} on the training batches and on the validation set."
    return Plot(
        name.replace("/", "_"), words.capitalize(), caption, words, lines, spans, logarithmic=wide
    )


def _lines(
    curve: CurveFile, columns: dict[str, str], *, positive: bool = False
) -> tuple[tuple[str, tuple[tuple[float, float], ...]], ...]:
    """Return label and points of the columns that hold any; a log axis takes positive ones."""
    lines = []
    for column, label in columns.items():
        points = curve.points(column)
        if positive:
            points = tuple(point for point in points if point[1] > 0)
        if points:
            lines.append((label, points))
    return tuple(lines)
