"""The residual against the iteration, for a few samples of one batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from equipoise.equilibrium import Equilibrium
from equipoise.equilibrium.solvers import Solver
from equipoise.report.plot import COLOURS, draw_level, new_axes, save

SAMPLES = 12
NAME = "convergence"


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
    """Let the layers keep their residuals for one batch, and then put everything back."""

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
        """Put the solvers back and return what was kept; an estimator's own loop keeps nothing."""
        traces = []
        for name, layer in self.layers.items():
            solver = layer.active_solver
            if layer.report is not None and layer.report.trace is not None:
                residuals = layer.report.trace[:, :SAMPLES].float().cpu()
                traces.append(Trace(name, solver.name, solver.stop, solver.tol, residuals))
        self.restore()
        return traces

    def restore(self) -> None:
        """Put the solvers back; without a recording nothing happens."""
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
    samples = samples.masked_fill(samples <= 0, torch.nan)  # a log axis has no place for zero
    iterations = range(1, samples.shape[1] + 1)
    for number, residuals in enumerate(samples.tolist()):
        label = f"{len(samples)} samples" if number == 0 else None
        axes.plot(iterations, residuals, color=COLOURS[0], alpha=0.35, linewidth=1.2, label=label)
    median = samples.nanmedian(dim=0).values.tolist()
    axes.plot(iterations, median, color=COLOURS[1], linewidth=2.2, label="median of these")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if trace.tolerance > 0:
        draw_level(axes, f"tolerance {trace.tolerance:g}", trace.tolerance)
    axes.legend(edgecolor="none", framealpha=0.85)
    save(figure, path)
