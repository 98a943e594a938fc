"""Seconds of training until a test accuracy: every estimator, torchdeq, and an explicit ResNet.

    python -m benchmarks.target_accuracy [--cifar FOLDER] [--seeds 1] [--seconds 660] [--output DIR]
                                         [--only NAME ...] [--quick]

Digits to 0.97, and 10,000 pictures of CIFAR-10 to 0.40. Every side gets the same order of the data,
Adam, the same rates to choose from, and is tested every few steps; testing is not counted. One
thread, processor time. A side that takes three times as long as the best equilibrium network so far
is given up, and has no figure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.image_tasks import ImageTask, Learner, parameters, tasks
from benchmarks.report import Report, TimeLimit, arguments
from benchmarks.stand_ins import TorchDEQ, torchdeq_is_there
from equipoise.equilibrium import (
    Anderson,
    Broyden,
    Equilibrium,
    Exact,
    JacobianFree,
    Phantom,
    Shine,
)

BUDGET, SHORT, TOLERANCE = 15, 6, 1e-3
GIVEN_UP = 3.0
"""A run is given up at this multiple of the best equilibrium network's time."""
RESNET = "ResNet"
Layer = Callable[[], nn.Module]


def layers() -> dict[str, Layer]:
    """What stands as equilibrium layer, by the name of its side."""
    anderson = Anderson(max_steps=BUDGET, tol=TOLERANCE)
    broyden = Broyden(max_steps=BUDGET, tol=TOLERANCE)
    short = Anderson(max_steps=SHORT, tol=0)
    ours = {
        f"jfb, {SHORT} evaluations": (short, JacobianFree()),
        f"phantom, {SHORT} evaluations": (short, Phantom()),
        "phantom": (anderson, Phantom()),
        "jfb": (anderson, JacobianFree()),
        "exact, anderson": (anderson, Exact(anderson)),
        "exact, broyden": (broyden, Exact(broyden)),
        "shine": (broyden, Shine()),
    }
    sides: dict[str, Layer] = {
        f"ours: {name}": lambda s=solver, e=estimator: Equilibrium(s, e)
        for name, (solver, estimator) in ours.items()
    }
    return sides | (peers() if torchdeq_is_there() else {})


def in_order() -> list[str]:
    """The sides, equal settings beside each other, so that a limit leaves out pairs."""
    names = list(layers())
    settings = list(dict.fromkeys(name.partition(": ")[2] for name in names))
    pairs = [f"{kind}: {setting}" for setting in settings for kind in ("ours", "torchdeq")]
    return [RESNET, *(name for name in pairs if name in names)]


def peers() -> dict[str, Layer]:
    """torchdeq's settings: exact, phantom and Jacobian-free, to the same tolerance or budget."""
    anderson, broyden = ({"f_solver": name, "b_solver": name} for name in ("anderson", "broyden"))
    settings: dict[str, tuple[int, dict[str, object]]] = {
        f"jfb, {SHORT} evaluations": (SHORT, {"grad": 1, **anderson}),
        f"phantom, {SHORT} evaluations": (SHORT, {"grad": 5, "tau": 0.5, **anderson}),
        "phantom": (BUDGET, {"grad": 5, "tau": 0.5, "tol": TOLERANCE, **anderson}),
        "jfb": (BUDGET, {"grad": 1, "tol": TOLERANCE, **anderson}),
        "exact, anderson": (BUDGET, {"ift": True, "tol": TOLERANCE, **anderson}),
        "exact, broyden": (BUDGET, {"ift": True, "tol": TOLERANCE, **broyden}),
    }
    return {
        f"torchdeq: {name}": lambda b=budget, s=options: TorchDEQ(b, s)
        for name, (budget, options) in settings.items()
    }


def network_of(side: str, task: ImageTask, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return task.resnet() if side == RESNET else task.mdeq(layers()[side]())


def time_to_target(
    side: str, task: ImageTask, rate: float, seed: int, cap: float
) -> tuple[float, int]:
    """Seconds and steps; infinite seconds where the cap comes first or the loss is not finite."""
    learner = Learner(network_of(side, task, seed), task, rate, seed)
    while learner.seconds < cap:
        if not math.isfinite(learner.step()):
            break
        if learner.steps % task.every == 0 and learner.accuracy() >= task.target:
            return learner.seconds, learner.steps
    return math.inf, learner.steps


def best_of(
    side: str, task: ImageTask, seeds: int, cap: float, limit: TimeLimit
) -> tuple[float, float, float] | None:
    """Seconds, steps and rate of the best rate, medians over the seeds; None for want of time.

    A rate is given up where it takes twice as long as an earlier one.
    """
    found: list[tuple[float, float, float]] = []
    for rate in task.rates:
        if not limit.allows(f"{side} on {task.name} at a rate of {rate:g}"):
            continue
        cap = min([cap, *(2 * seconds for seconds, _, _ in found)])
        runs = [time_to_target(side, task, rate, seed, cap) for seed in range(seeds)]
        seconds, steps = (statistics.median(values) for values in zip(*runs, strict=True))
        found.append((seconds, steps, rate))
    return min(found) if found else None


def table(report: Report, task: ImageTask, names: list[str], seeds: int, limit: TimeLimit) -> None:
    count = parameters(network_of(next(iter(layers())), task, 0))
    report.heading(
        f"Seconds of training to an accuracy of {task.target} on {task.name}: MDEQ of {count} "
        f"parameters, ResNet of {parameters(task.resnet())}, rates {task.rates}, {seeds} seed(s)"
    )
    report.columns("side", "seconds", "steps", "ms a step", "rate")
    times: dict[str, float] = {}
    for side in names:
        equilibria = [spent for name, spent in times.items() if name != RESNET]
        cap = min([task.cap, *(GIVEN_UP * spent for spent in equilibria)])
        best = best_of(side, task, seeds, cap, limit)
        if best is None:
            continue
        seconds, steps, rate = best
        if math.isinf(seconds):
            report.row(side, f"over {cap:.0f}", None, None, None)
        else:
            times[side] = seconds
            report.row(side, seconds, steps, 1e3 * seconds / steps, rate)
    compare(report, times)


def compare(report: Report, times: dict[str, float]) -> None:
    """The best of ours over torchdeq's best and over the ResNet, and each over torchdeq's equal."""
    equals = [name.removeprefix("torchdeq: ") for name in times if name.startswith("torchdeq: ")]
    ratios = [
        f"{name}: {times[f'ours: {name}'] / times[f'torchdeq: {name}']:.2f}"
        for name in equals
        if f"ours: {name}" in times
    ]
    if ratios:
        report.sentence(f"Ours over torchdeq with the same setting: {'; '.join(ratios)}.")
    kinds = {
        kind: [(t, side) for side, t in times.items() if side.startswith(kind)]
        for kind in ("ours", "torchdeq", RESNET)
    }
    best = {kind: min(found) for kind, found in kinds.items() if found}
    for other in ("torchdeq", RESNET):
        if "ours" in best and other in best:
            report.sentence(
                f"Best of ours ({best['ours'][1]}) over {best[other][1]}: "
                f"{best['ours'][0] / best[other][0]:.2f}."
            )


def main() -> None:
    parser = arguments(__doc__, seconds=660)
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as parquet files in the hub's layout")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="sides, by a part of their names")
    parser.add_argument("--task", choices=("digits", "CIFAR-10"), help="one of the two alone")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(chosen.output and chosen.output / "target_accuracy.md")
    names = in_order()
    if chosen.only:
        names = [name for name in names if any(part in name for part in chosen.only)]
    if chosen.quick:
        names = names[:3]
    chosen_tasks = [
        task
        for task in tasks(chosen.cifar, chosen.quick, report)
        if chosen.task is None or task.name.startswith(chosen.task)
    ]
    for task in chosen_tasks:
        limit = TimeLimit(chosen.seconds / len(chosen_tasks))
        table(report, task, names, chosen.seeds, limit)
        limit.tell(report)


if __name__ == "__main__":
    main()
