"""Four ways in which a solve can go, as one picture: docs/tutorials/reading_a_convergence_plot.md.

    python examples/convergence_cases.py
    python examples/convergence_cases.py --output cases.png

The function is z -> tanh(W z + x) or its linear part; the radius is that of W. Every line is one of
twelve samples.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from equipoise.equilibrium import Anderson, Broyden, FixedPoint, Solver
from equipoise.report.plot import COLOURS, FULL, draw_level, logarithmic, new_figure, style

SAMPLES, WIDTH, TOLERANCE, BUDGET = 12, 32, 1e-3, 30


class Case(NamedTuple):
    """A panel: its title, the spectral radius of W, whether f is bounded by tanh, the solver."""

    title: str
    radius: float
    bounded: bool
    solver: Solver


WHOLE = {"trace": True, "tol": 0.0, "max_steps": BUDGET, "patience": BUDGET}
CASES = (
    Case("converges, to the round-off", 0.7, True, Anderson(**WHOLE)),
    Case("the budget ends first", 0.98, False, FixedPoint(**WHOLE)),
    Case("some samples never settle", 1.7, True, FixedPoint(**WHOLE)),
    Case("the same f, another solver", 1.7, True, Broyden(memory=BUDGET, **WHOLE)),
)


def residuals(case: Case) -> Tensor:
    """The residual of every sample after each evaluation (evaluations, samples)."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(WIDTH, WIDTH, generator=generator)
    weight *= case.radius / torch.linalg.eigvals(weight).abs().max()
    x = torch.randn(SAMPLES, WIDTH, generator=generator)

    def f(z: Tensor, x: Tensor) -> Tensor:
        ahead = z @ weight.T + x
        return torch.tanh(ahead) if case.bounded else ahead

    trace = case.solver.solve(f, torch.zeros_like(x), x).trace
    assert trace is not None
    return trace


def main() -> None:
    """Write the picture, and print where the median sample ends."""
    parser = argparse.ArgumentParser(description="Four ways in which a solve can go.")
    parser.add_argument("--output", type=Path, default=Path("docs/pictures/cases.png"))
    output = parser.parse_args().output
    figure = new_figure(FULL, 6.0)
    for axes, case in zip(figure.subplots(2, 2).flat, CASES, strict=True):
        trace = residuals(case)
        median = trace.median(dim=1).values
        evaluations = range(1, len(trace) + 1)
        style(axes, case.title, "evaluations of f", "residual (relative)")
        axes.plot(evaluations, trace, color=COLOURS[0], alpha=0.4, linewidth=1.2)
        axes.plot(evaluations, median, color=COLOURS[1], linewidth=2.5, label="median")
        draw_level(axes, "tolerance 0.001", TOLERANCE)
        logarithmic(axes.yaxis)
        print(f"{case.title:28} median residual {median[-1].item():.1e} ({case.solver.name})")
    figure.axes[0].legend(edgecolor="none")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.canvas.draw()
    drawn = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    drawn.quantize(48).save(output)  # as large as a page of documentation can bear
    print(f"picture: {output}")


if __name__ == "__main__":
    main()
