"""How fast do four solvers reach the same equilibrium? Residual against evaluations, as a picture.

    python examples/convergence_study.py
    python examples/convergence_study.py --checkpoint runs/<...>/checkpoints/best.ckpt

The network is an MDEQ after a few steps of training, or that of a checkpoint on images. Every
solver starts at zero and sees the same function and images; one evaluation costs all of them the
same.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import equipoise
from equipoise.data import Digits
from equipoise.equilibrium import AdjointBroyden, Anderson, Broyden, FixedPoint, Solver
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.report.plot import COLOURS, new_axes

SOLVERS: tuple[Solver, ...] = (FixedPoint(), Anderson(), Broyden(), AdjointBroyden())


def trained_network(images: Tensor, labels: Tensor, steps: int) -> nn.Module:
    """A small MDEQ after some steps of Adam."""
    torch.manual_seed(0)
    network = equipoise.build("model=mdeq", "task=digits", "model.size=tiny", "solver.tol=1e-2")
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(steps):
        rows = torch.randperm(len(labels))[:64]
        loss = functional.cross_entropy(network(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def trace(network: nn.Module, images: Tensor, solver: Solver, budget: int) -> Tensor:
    """The median residual of the samples after each evaluation (budget,)."""
    (layer,) = equilibrium_layers(network).values()
    layer.solver = replace(solver, max_steps=budget, tol=0, trace=True)  # 0: the whole budget
    layer.eval_solver = None
    with torch.no_grad():
        network(images)
    residuals: Tensor = layer.report.trace.cummin(dim=0).values.median(dim=1).values
    return residuals


def main() -> None:
    """Trace every solver, print when each reached what, and draw the picture."""
    parser = argparse.ArgumentParser(description="Residual against evaluations of four solvers.")
    parser.add_argument("--checkpoint", help="of a run on the digits; default: a short training")
    parser.add_argument("--steps", type=int, default=40, help="of that short training")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--budget", type=int, default=60, help="evaluations of each solver")
    parser.add_argument("--output", type=Path, default=Path("convergence.png"))
    given = parser.parse_args()

    data = Digits(batch_size=1024)
    data.setup()
    training, test = (next(iter(load())) for load in (data.train_dataloader, data.test_dataloader))
    if given.checkpoint:
        network = equipoise.build(f"ckpt_path={given.checkpoint}")
    else:
        network = trained_network(training["image"], training["label"], given.steps)
    network.eval()

    figure, axes = new_axes("Four solvers, one equilibrium", "evaluations of f", "median residual")
    print(f"{'evaluations until':20}{'1e-2':>8}{'1e-4':>8}{'1e-6':>8}{'least':>10}")
    for solver, colour in zip(SOLVERS, COLOURS, strict=False):
        residuals = trace(network, test["image"][: given.images], solver, given.budget)
        axes.semilogy(range(1, given.budget + 1), residuals, color=colour, label=solver.name)
        reached = [(residuals < level).nonzero().flatten() for level in (1e-2, 1e-4, 1e-6)]
        counts = [str(int(found[0]) + 1) if len(found) else "-" for found in reached]
        shown = "".join(f"{count:>8}" for count in counts)
        print(f"{solver.name:20}{shown}{residuals.min().item():>10.1e}")
    axes.legend(edgecolor="none")
    figure.savefig(given.output)
    print(f"picture: {given.output}")


if __name__ == "__main__":
    main()
