"""The curve of a run, read back from metrics.csv, and the pictures drawn from it."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from equipoise.equilibrium import Equilibrium
from equipoise.equilibrium.solvers import Solver
from equipoise.report.lines import Lines, Plot, Points, Span
from equipoise.report.plot import COLOURS, draw_level, logarithmic, new_axes, save

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


SAMPLES = 12
NAME = "convergence"


class CurveFile:
    """The columns of a metrics.csv; a file that does not exist has none."""

    def __init__(self, path: Path | None) -> None:
        self.rows: list[dict[str, str]] = []
        if path is not None and path.is_file():
            with path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))

    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.rows[0]) if self.rows else []

    def points(self, column: str) -> Points:
        """The finite values of a column with their steps."""
        filled = [(row["step"], row[column]) for row in self.rows if row.get(column)]
        pairs = [(float(step), float(value)) for step, value in filled]
        return tuple(sorted(pair for pair in pairs if math.isfinite(pair[1])))

    def pairs(self, first: str, second: str) -> list[tuple[float, float]]:
        """Finite pairs of values of two columns, paired by row, else by epoch (its last values).

        Validation rows count their steps differently from training rows.
        """
        pairs = [
            (row[first], row[second]) for row in self.rows if row.get(first) and row.get(second)
        ]
        if not pairs:
            ends = [
                {int(row["epoch"]): row[name] for row in self.rows if row.get(name)}
                for name in (first, second)
            ]
            pairs = [(ends[0][epoch], ends[1][epoch]) for epoch in ends[0] if epoch in ends[1]]
        numbers = [(float(a), float(b)) for a, b in pairs]
        return [pair for pair in numbers if all(map(math.isfinite, pair))]

    def gradient_spans(self) -> tuple[Span, ...]:
        """The phases of the gradient estimator; none where it never changed."""
        named = [(float(row["step"]), row["gradient"]) for row in self.rows if row.get("gradient")]
        spans, start = [], 0.0
        for name, group in groupby(named, key=lambda pair: pair[1]):
            last = list(group)[-1][0]
            spans.append(Span(name, start, last))
            start = last
        return tuple(spans) if len(spans) > 1 else ()


def plots(curve: CurveFile, tolerance: float | None, stop: str = "") -> list[Plot]:
    """A picture of each training metric, of the solvers and of the learning rate.

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
            "Evaluations per batch: the cost of the equilibrium.",
            "evaluations per batch",
            _lines(curve, EVALUATIONS),
            spans,
        ),
        Plot(
            "converged",
            "Converged samples",
            "Fraction of training samples whose solve reached the tolerance.",
            "fraction of samples",
            _lines(curve, CONVERGED),
            spans,
        ),
        Plot(
            "fidelity",
            "Gradient fidelity",
            "The active estimator's gradient compared with the exact one; both are 1 at best.",
            "estimated to exact",
            _lines(curve, FIDELITY),
            spans,
        ),
        Plot(
            "learning_rate",
            "Learning rate",
            "As set by the schedule.",
            "learning rate",
            _lines(curve, {c: c.removeprefix("lr-") for c in curve.columns() if c[:3] == "lr-"}),
            spans,
        ),
    ]
    return [plot for plot in candidates if plot.lines]


def _metrics(curve: CurveFile) -> list[str]:
    """The names behind "train/" and "val/", the loss first."""
    stages = ("train/", "val/")
    names = {c.split("/", 1)[1] for c in curve.columns() if c.startswith(stages)}
    return sorted(names - {"skipped_steps"}, key=lambda name: (name != "loss", name))


def _metric(curve: CurveFile, name: str, spans: tuple[Span, ...]) -> Plot:
    words = name.replace("_", " ").replace("/", " ")
    lines = _lines(curve, {f"train/{name}": "training", f"val/{name}": "validation"})
    caption = f"{words.capitalize()} on the training batches and on the validation set."
    return Plot(
        name.replace("/", "_"), words.capitalize(), caption, words, lines, spans,
        logarithmic=name == "loss" and is_wide(lines),
    )  # fmt: skip


def is_wide(lines: Lines) -> bool:
    """Whether curves need a logarithmic axis: all positive, and over a wide range of values."""
    values = [value for _, points in lines for _, value in points]
    return bool(values) and min(values) > 0 and max(values) > 20 * min(values)


def _lines(curve: CurveFile, columns: dict[str, str], *, positive: bool = False) -> Lines:
    """Label and points of each column that has any; for a log axis, the positive ones only."""
    lines = []
    for column, label in columns.items():
        points = curve.points(column)
        if positive:
            points = tuple(point for point in points if point[1] > 0)
        if points:
            lines.append((label, points))
    return tuple(lines)


@dataclass(frozen=True)
class Trace:
    """Residuals (evaluations, samples) of one layer's solve, on the host.

    solver: its name; stop: how it measures the residual that it compares with the tolerance.
    """

    layer: str
    solver: str
    stop: str
    tolerance: float
    residuals: Tensor


class TraceRecorder:
    """Let the layers record their residuals for one batch, then restore their solvers."""

    def __init__(self, layers: dict[str, Equilibrium]) -> None:
        self.layers = layers
        self.replaced: dict[str, tuple[Solver, Solver | None]] = {}

    def start(self) -> None:
        """Switch `trace` on in every solver."""
        for name, layer in self.layers.items():
            self.replaced[name] = (layer.solver, layer.eval_solver)
            layer.solver = replace(layer.solver, trace=True)
            if layer.eval_solver is not None:
                layer.eval_solver = replace(layer.eval_solver, trace=True)

    def stop(self) -> list[Trace]:
        """Restore the solvers and return the traces; an estimator's own loop leaves none."""
        traces = []
        for name, layer in self.layers.items():
            solver = layer.active_solver
            if layer.report is not None and layer.report.trace is not None:
                residuals = layer.report.trace[:, :SAMPLES].float().cpu()
                traces.append(Trace(name, solver.name, solver.stop, solver.tol, residuals))
        self.restore()
        return traces

    def restore(self) -> None:
        """Restore the solvers; without a recording nothing happens."""
        for name, (solver, eval_solver) in self.replaced.items():
            self.layers[name].solver = solver
            self.layers[name].eval_solver = eval_solver
        self.replaced = {}


def draw_trace(trace: Trace, path: Path) -> None:
    """Write the picture of one layer's solve."""
    from matplotlib.ticker import MaxNLocator

    title = f"Convergence on test samples ({trace.solver.replace('_', ' ')})"
    figure, axes = new_axes(title, "evaluations of f", f"residual ({trace.stop})")
    samples = trace.residuals.T
    samples = samples.masked_fill(samples <= 0, torch.nan)  # a log axis cannot show zero
    iterations = range(1, samples.shape[1] + 1)
    for number, residuals in enumerate(samples.tolist()):
        label = f"{len(samples)} samples" if number == 0 else None
        axes.plot(iterations, residuals, color=COLOURS[0], alpha=0.35, linewidth=1.2, label=label)
    median = samples.nanmedian(dim=0).values.tolist()
    axes.plot(iterations, median, color=COLOURS[1], linewidth=2.2, label="median of these")
    logarithmic(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if trace.tolerance > 0:
        draw_level(axes, f"tolerance {trace.tolerance:g}", trace.tolerance)
    axes.legend(edgecolor="none", framealpha=0.85)
    save(figure, path)
