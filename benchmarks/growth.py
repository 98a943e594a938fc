"""How the cost of a training step grows with batch, resolution, sequence length and budget.

    python -m benchmarks.growth [--seconds 200] [--output DIR] [--quick]

Each is varied alone; the exponent is the slope of log(time) against log(size), with its standard
error. Resolution counts pixels. One thread, processor time, sizes in turn, medians of three rounds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from benchmarks.report import Report, TimeLimit, arguments
from benchmarks.step_cases import Case, mdeq_case, methods, transformer_case
from benchmarks.training_steps import Training, timed
from equipoise.equilibrium import Equilibrium

METHOD = "anderson, phantom"
BUDGET = 10
ROUNDS = 3


@dataclass(frozen=True)
class Series:
    """One quantity that is varied, and the case of each of its values."""

    name: str
    values: Sequence[int]
    case: Callable[[int], Case]
    size: Callable[[int], int] = lambda value: value


def series(quick: bool) -> Iterator[Series]:
    def mdeq(batch: int = 8, side: int = 32, budget: int = BUDGET) -> Case:
        return mdeq_case("tiny", batch, "fp32", METHOD, (budget, budget), side=side)

    def transformer(length: int) -> Case:
        return transformer_case(
            4, "fp32", METHOD, (BUDGET, BUDGET), width=16 if quick else 128, length=length
        )

    if quick:
        yield Series("batch", (1, 2), lambda n: mdeq(batch=n, side=8, budget=2))
        yield Series("sequence length", (4, 8), transformer)
        return
    yield Series("batch", (2, 4, 8, 16, 32), lambda n: mdeq(batch=n))
    yield Series(
        "resolution (pixels)", (16, 24, 32, 48, 64), lambda n: mdeq(side=n), lambda n: n * n
    )
    yield Series("sequence length", (32, 64, 128, 256, 512), transformer)
    yield Series("budget (evaluations)", (5, 10, 20, 40, 80), lambda n: mdeq(budget=n))


def times_of(chosen: Series, rounds: int) -> list[float]:
    """Median seconds of a step at each value."""
    sides = {}
    for value in chosen.values:
        case = chosen.case(value)
        method = methods(*case.budgets)[case.method]
        training = Training(case, Equilibrium(method.solver, method.estimator))
        sides[str(value)] = training.step
    times = timed(sides, "cpu", rounds)
    return [statistics.median(times[name]) for name in sides]


def exponent(sizes: Sequence[float], times: Sequence[float]) -> tuple[float, float]:
    """Slope of the line through the logarithms by least squares, and its standard error."""
    x, y = ([math.log(value) for value in values] for values in (sizes, times))
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    rest = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    freedom = len(x) - 2
    return slope, math.sqrt(rest / freedom / spread) if freedom > 0 else math.nan


def tables(report: Report, limit: TimeLimit, quick: bool) -> None:
    report.heading("Growth of a training step")
    report.columns("varied", "values", "ms a step", "exponent", "standard error")
    for chosen in series(quick):
        if not limit.allows(chosen.name):
            continue
        times = times_of(chosen, 1 if quick else ROUNDS)
        slope, error = exponent([chosen.size(value) for value in chosen.values], times)
        shown = ", ".join(f"{1e3 * spent:.3g}" for spent in times)
        report.row(chosen.name, ", ".join(map(str, chosen.values)), shown, slope, error)
    limit.tell(report)


def main() -> None:
    chosen = arguments(__doc__, seconds=200).parse_args()
    torch.set_num_threads(1)
    report = Report(chosen.output and chosen.output / "growth.md")
    tables(report, TimeLimit(chosen.seconds), chosen.quick)


if __name__ == "__main__":
    main()
