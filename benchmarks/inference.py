"""Time of inference at equal accuracy: compaction, Jacobian regularisation, an explicit ResNet.

    python -m benchmarks.inference [--cifar FOLDER] [--steps 300] [--seconds 300] [--output DIR]
                                   [--quick]

Trains an MDEQ, the same with Jacobian regularisation (2106.14342), and a ResNet of about as many
parameters, equally many steps in the same order. For each MDEQ the smallest budget and the loosest
tolerance that keep the test accuracy within 0.3 points of its own best are found, and timed on the
first 1,000 test pictures. One thread, processor time, sides in turn, medians. On CIFAR-10 where its
folder is named, otherwise on the digits.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cifar_images import Pictures
from benchmarks.image_tasks import (
    EVALUATION_BATCH,
    NO_FOLDER,
    ImageTask,
    Learner,
    cifar_task,
    digits_task,
)
from benchmarks.report import Report, arguments
from benchmarks.timing import in_turn, ratio
from equipoise.equilibrium import Anderson, Equilibrium, JacobianRegularizer, Phantom, Solver

TRAINING = Anderson(max_steps=15, tol=1e-3)
PLAIN, REGULARISED, RESNET = "MDEQ", "MDEQ, regularised", "ResNet"
BUDGETS = (1, 2, 3, 4, 6, 8, 10, 15, 20, 30)
TOLERANCES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001)
MOST, COMPACT_AT = 40, 0.1
POINTS = 0.003
ROUNDS, TIMED = 3, 1000


def trained(task: ImageTask, steps: int, rate: float, weight: float) -> dict[str, nn.Module]:
    """The three networks in evaluation mode."""
    networks = {}
    for name in (PLAIN, REGULARISED, RESNET):
        torch.manual_seed(0)
        penalty = JacobianRegularizer(weight=weight) if name == REGULARISED else None
        layer = Equilibrium(TRAINING, Phantom(), regularizer=penalty)
        network = task.resnet() if name == RESNET else task.mdeq(layer)
        learner = Learner(network, task, rate)
        for _ in range(steps):
            learner.step()
        networks[name] = network.eval()
        print(f"{name}: {steps} steps in {learner.seconds:.0f} s", flush=True)
    return networks


@torch.no_grad()
def logits(network: nn.Module, pictures: Pictures) -> Tensor:
    rows = torch.arange(len(pictures)).split(EVALUATION_BATCH)
    return torch.cat([network(pictures.batch(r)[0]) for r in rows])


@dataclass
class Choice:
    """A network with the solver that it is evaluated with, None of an explicit one."""

    name: str
    setting: str
    network: nn.Module
    solver: Solver | None
    task: ImageTask

    def logits(self, pictures: Pictures) -> Tensor:
        if self.solver is not None:
            self.network.equilibrium.eval_solver = self.solver
        return logits(self.network, pictures)

    def timed(self) -> None:
        self.logits(self.task.test.first(TIMED))

    @cached_property
    def predictions(self) -> Tensor:
        return self.logits(self.task.test).argmax(dim=1)

    @property
    def accuracy(self) -> float:
        return float((self.predictions == self.task.test.labels).float().mean())

    def evaluations(self) -> float | None:
        """Of f, of each sample, on average over the timed pictures."""
        if self.solver is None:
            return None
        rows = 0

        def count(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            nonlocal rows
            rows += len(inputs[0][0])

        handle = self.network.cell.register_forward_pre_hook(count)
        self.timed()
        handle.remove()
        return rows / min(TIMED, len(self.task.test))


def least(choices: list[Choice], best: float) -> Choice:
    """The first of them, from cheap to dear, that is within 0.3 points of the best."""
    for choice in choices:
        if choice.accuracy >= best - POINTS:
            return choice
    return choices[-1]


def equal_accuracy(name: str, network: nn.Module, task: ImageTask) -> Iterator[Choice]:
    """The cheapest budget, and the loosest tolerance without and with compaction."""
    budgets = [
        Choice(name, f"{b} evaluations", network, Anderson(max_steps=b, tol=0), task)
        for b in BUDGETS
    ]
    best = max(choice.accuracy for choice in budgets)
    yield least(budgets, best)
    tolerances = [
        Choice(name, f"tolerance {t:g}", network, Anderson(max_steps=MOST, tol=t), task)
        for t in TOLERANCES
    ]
    loosest = least(tolerances, best)
    yield loosest
    yield compacted(loosest)


def compacted(choice: Choice) -> Choice:
    assert choice.solver is not None
    solver = replace(choice.solver, compact_at=COMPACT_AT)
    return replace(choice, setting=f"{choice.setting}, compaction", solver=solver)


def table(report: Report, task: ImageTask, networks: dict[str, nn.Module], rounds: int) -> None:
    choices = [Choice(RESNET, "", networks[RESNET], None, task)]
    for name in (PLAIN, REGULARISED):
        choices += equal_accuracy(name, networks[name], task)
    sides = {f"{choice.name} {choice.setting}": choice for choice in choices}
    times = in_turn({name: choice.timed for name, choice in sides.items()}, rounds)
    medians = {name: statistics.median(spent) for name, spent in times.items()}
    report.columns("network", "setting", "accuracy", "ms a 1000 pictures", "over ResNet",
                   "evaluations a sample")  # fmt: skip
    pictures = min(TIMED, len(task.test))
    for name, choice in sides.items():
        report.row(
            choice.name, choice.setting, f"{choice.accuracy:.4f}", 1e6 * medians[name] / pictures,
            ratio(times, name, f"{RESNET} "), choice.evaluations(),
        )  # fmt: skip
    plain, regularised = (
        min((name for name in sides if sides[name].name == kind), key=lambda name: medians[name])
        for kind in (PLAIN, REGULARISED)
    )
    report.sentence(
        f"Fastest regularised over fastest unregularised: {ratio(times, regularised, plain):.2f}."
    )


def compaction(report: Report, task: ImageTask, network: nn.Module, rounds: int) -> None:
    """Tolerance 1e-2, budget 40: what compaction saves, and whether predictions stay."""
    whole = Choice(PLAIN, "whole", network, Anderson(max_steps=MOST, tol=1e-2), task)
    smaller = compacted(whole)
    spent, left = (choice.evaluations() or 0.0 for choice in (whole, smaller))
    same = (whole.predictions == smaller.predictions).float().mean()
    times = in_turn({choice.setting: choice.timed for choice in (whole, smaller)}, rounds)
    report.sentence(
        f"Compaction at tolerance 0.01, budget {MOST}: {spent:.1f} evaluations a sample become "
        f"{left:.1f} ({1 - left / spent:.0%} saved), time "
        f"{ratio(times, smaller.setting, whole.setting):.2f}, equal predictions {float(same):.2%}."
    )


def main() -> None:
    parser = arguments(__doc__, seconds=300)
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as parquet files in the hub's layout")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--weight", type=float, default=1.0, help="of the regulariser")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(chosen.output and chosen.output / "inference.md")
    task = cifar_task(chosen.cifar, chosen.quick)
    if task is None:
        report.sentence(NO_FOLDER)
        task = digits_task(chosen.quick)
    steps, rounds = (2, 1) if chosen.quick else (chosen.steps, ROUNDS)
    networks = trained(task, steps, chosen.rate, chosen.weight)
    report.heading(f"Inference at equal accuracy on {task.name}, {steps} steps of training")
    table(report, task, networks, rounds)
    compaction(report, task, networks[PLAIN], rounds)


if __name__ == "__main__":
    main()
