"""Peak memory of a training step: the convolution block, and MDEQ against the solver's budget.

    python -m benchmarks.step_memory [--device cpu] [--quick]

Peaks of the second step, above what weights and inputs take. The limit that is held for the
convolution block (16 samples of 32,768 numbers, 20 evaluations) is 86 MiB.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.functions import TimedFunction, convolution
from benchmarks.memory import peak_bytes
from benchmarks.report import Report, arguments
from benchmarks.stand_ins import TorchDEQ, torchdeq_is_there
from benchmarks.step_cases import methods
from equipoise.equilibrium import Anderson, Equilibrium, Exact, JacobianFree, Phantom, Unrolled
from equipoise.models import MDEQ

EVALUATIONS = 20
BUDGETS = (10, 20, 40, 80)
MIB = 2**20


def layer_step(layer: nn.Module, timed: TimedFunction) -> None:
    """Forward and backward of a layer alone, and the gradients dropped."""
    layer(timed.f, timed.z0, timed.x).square().mean().backward()
    timed.f.zero_grad()
    timed.x.grad = None


def network_step(network: nn.Module, image: Tensor, label: Tensor) -> None:
    functional.cross_entropy(network(image), label).backward()
    network.zero_grad()


def convolution_peaks(report: Report, device: str, quick: bool) -> None:
    timed = convolution(device)
    if quick:
        timed = TimedFunction(timed.name, timed.f, timed.z0[:2], timed.x[:2])
    timed.x.requires_grad_()
    report.heading("Peak memory of a step of the convolution block")
    report.columns("method", "MiB", "MiB of torchdeq")
    for name, method in methods(EVALUATIONS, EVALUATIONS).items():
        if method.solver.tol:
            continue
        ours = Equilibrium(method.solver, method.estimator)
        peaks: list[float | None] = [peak_bytes(partial(layer_step, ours, timed)) / MIB]
        peer = None
        if method.peer and torchdeq_is_there():
            layer = TorchDEQ(EVALUATIONS, dict(method.peer))
            peer = peak_bytes(partial(layer_step, layer, timed)) / MIB
        report.row(name, *peaks, peer)


def budget_peaks(report: Report, device: str, quick: bool) -> None:
    batch, side, budgets = (2, 8, (2, 4)) if quick else (16, 32, BUDGETS)
    image, label = torch.randn(batch, 3, side, side).to(device), torch.arange(batch).to(device) % 10
    report.heading(f"Peak memory of a step of MDEQ tiny, batch {batch}, in MiB at evaluations")
    report.columns("method", *map(str, budgets), "growth")
    for name in ("anderson, phantom", "anderson, jfb", "anderson, exact", "unrolled layers"):
        peaks = []
        for budget in budgets:
            anderson = Anderson(max_steps=budget, tol=0)
            estimator = {
                "anderson, phantom": Phantom(), "anderson, jfb": JacobianFree(),
                "anderson, exact": Exact(anderson), "unrolled layers": Unrolled(budget),
            }[name]  # fmt: skip
            torch.manual_seed(0)
            network = MDEQ(
                Equilibrium(anderson, estimator), classes=10, image_size=side, size="tiny"
            )
            network.to(device).train()
            peaks.append(peak_bytes(partial(network_step, network, image, label)) / MIB)
        report.row(name, *peaks, f"{max(peaks) / min(peaks) - 1:.1%}")


def tables(report: Report, device: str, quick: bool) -> None:
    convolution_peaks(report, device, quick)
    budget_peaks(report, device, quick)


def main() -> None:
    parser = arguments(__doc__, seconds=180)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    file = chosen.output and chosen.output / "step_memory.md"
    tables(Report(file), chosen.device, chosen.quick)


if __name__ == "__main__":
    main()
