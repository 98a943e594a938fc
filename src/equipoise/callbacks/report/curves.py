"""Which pictures the curve of a run gives."""

from __future__ import annotations

from equipoise.callbacks.report.curve_file import CurveFile, Span
from equipoise.callbacks.report.plot import Plot

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
