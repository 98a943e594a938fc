"""Whole training steps on one CPU thread, over the bare evaluations in them, beside torchdeq's.

    python -m benchmarks.steps [--seconds 480] [--output DIR] [--quick]

MDEQ for CIFAR-10, tiny and large, batch 32, 18 evaluations forward and 20 products backward; an
equilibrium transformer (width 128, 64 tokens, batch 8, 30 and 36). torchdeq drives the same f with
the same budgets. Processor time, sides in turn, medians of the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch

from benchmarks.report import Report, TimeLimit, arguments
from benchmarks.stand_ins import Counted, torchdeq_is_there
from benchmarks.step_cases import Case, mdeq_case, transformer_case
from benchmarks.training_steps import over, sides_of, timed

METHODS = (
    "broyden, exact",
    "anderson, exact",
    "broyden, phantom",
    "broyden, shine",
    "broyden, jfb",
)
ROUNDS, ROUNDS_OF_LARGE = 5, 3


def cases(quick: bool) -> Iterator[tuple[Case, int]]:
    """Each with its number of rounds; the slowest last."""
    if quick:
        yield mdeq_case("tiny", 2, "fp32", METHODS[0], (3, 3), side=8), 1
        yield transformer_case(2, "fp32", METHODS[0], (3, 3), width=16, length=8), 1
        return
    for method in METHODS:
        yield mdeq_case("tiny", 32, "fp32", method), ROUNDS
    for method in METHODS:
        yield transformer_case(8, "fp32", method), ROUNDS
    for method in (METHODS[0], METHODS[2], METHODS[4], METHODS[1]):
        yield mdeq_case("large", 32, "fp32", method), ROUNDS_OF_LARGE


def row(case: Case, rounds: int) -> list[object]:
    sides = sides_of(case)
    calls = {name: Counted.in_step(training) for name, training in sides.items()}
    times = timed({name: training.step for name, training in sides.items()}, case.device, rounds)
    return [
        case.model, case.batch, case.method, 1e3 * statistics.median(times["ours"]),
        over(times, "ours", "bare"), over(times, "torchdeq", "bare"),
        over(times, "ours", "torchdeq"), calls["ours"], calls.get("torchdeq"),
    ]  # fmt: skip


def tables(report: Report, limit: TimeLimit, quick: bool) -> None:
    report.heading("Whole training steps, one thread")
    if not torchdeq_is_there():
        report.sentence("torchdeq is not installed: its columns are empty.")
    report.columns(
        "model", "batch", "method", "ms", "over bare", "torchdeq over bare", "ours over torchdeq",
        "evaluations of f", "torchdeq's",
    )  # fmt: skip
    for case, rounds in cases(quick):
        if limit.allows(case.name):
            report.row(*row(case, rounds))
    limit.tell(report)


def main() -> None:
    chosen = arguments(__doc__, seconds=480).parse_args()
    torch.set_num_threads(1)
    report = Report(chosen.output and chosen.output / "steps.md")
    tables(report, TimeLimit(chosen.seconds), chosen.quick)


if __name__ == "__main__":
    main()
