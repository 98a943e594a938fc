"""Learning-rate schedules over the whole run, stepped once an optimiser step.

Lengths are fractions of the run, so that a shortened run still sees the whole schedule. A
`Plateau` has no length, and is stepped once a validation.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, SupportsFloat

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau


class Schedule(Protocol):
    """Builds the scheduler once the number of steps is known."""

    def __call__(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """A scheduler for `steps` optimiser steps."""
        ...


@dataclass(frozen=True)
class Constant:
    """The optimiser's rate, after a linear warm-up over the fraction `warmup` of the run."""

    warmup: float = 0.0

    def __call__(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """Factors of the base rate, by step."""
        return LambdaLR(optimizer, lambda step: ramp(step, self.warmup * steps))


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then last + (rate - last) (1 + cos(pi t)) / 2, t from 0 to 1.

    The last rate is `minimum`, or `final_factor` times the rate where that is more: a factor serves
    groups of parameters whose rates differ, as those of LARS. t counts from the end of the warm-up,
    or with `from_first_step` from the first step, so that the warm-up replaces its beginning.

    Source: Loshchilov and Hutter 2017 (arXiv 1608.03983), eq. 5, without restarts.
    """

    warmup: float = 0.0
    minimum: float = 1e-6
    final_factor: float = 0.0
    from_first_step: bool = False

    def __call__(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """Factors of the base rate, by step; `minimum` is a rate, not a factor."""
        start = self.warmup * steps
        begin = 0.0 if self.from_first_step else start
        rates = [group["lr"] for group in optimizer.param_groups]
        least = [min(1.0, self.minimum / rate) if rate > 0 else 1.0 for rate in rates]
        floors = [max(floor, self.final_factor) for floor in least]

        def factor(step: int, floor: float) -> float:
            if step < start:
                return ramp(step, start)
            progress = min(1.0, (step - begin) / max(1.0, steps - begin))
            return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2

        return LambdaLR(optimizer, [partial(factor, floor=floor) for floor in floors])


@dataclass(frozen=True)
class InverseSquareRoot:
    """rate * min(step / W, sqrt(W / step)): linear warm-up over W steps, then a slow fall.

    W is the fraction `warmup` of the run, and at least one step; steps are counted from 1. The
    published warm-up, 4,000 steps, is one of 100,000 there: `warmup` 0.04.
    Source: Vaswani et al. 2017 (arXiv 1706.03762), eq. 3; its factor width^-0.5 W^-0.5 is the
    optimiser's rate here, the greatest of the run.
    """

    warmup: float = 0.1

    def __call__(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """Factors of the base rate, by step."""
        start = max(1.0, self.warmup * steps)
        return LambdaLR(
            optimizer, lambda step: min(ramp(step, start), math.sqrt(start / (step + 1)))
        )


class PlateauScheduler(ReduceLROnPlateau):
    """torch's, which can also be stepped without a value, as all others are: nothing changes then.

    monitor: the metric whose value in each validation it is to be stepped with.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"],
        factor: float,
        patience: int,
        monitor: str,
    ) -> None:
        super().__init__(optimizer, mode, factor, patience)
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.monitor = monitor

    def step(self, metrics: SupportsFloat | None = None, epoch: int | None = None) -> None:  # type: ignore[override]
        """Judge the value of a validation, and lower the rates where it was one too many."""
        if metrics is not None:
            super().step(metrics, epoch)


@dataclass(frozen=True)
class Plateau:
    """Multiplies the rate by `factor` when more than `patience` validations bring nothing better.

    Better is what undercuts (mode "min") or exceeds ("max") the best value of `monitor` so far by
    one in 10,000. An epoch has one validation unless the trainer is told otherwise.
    Source: the code of Tsai et al. 2019 (arXiv 1906.00295), which takes torch's ReduceLROnPlateau.
    """

    monitor: str
    mode: Literal["min", "max"] = "min"
    factor: float = 0.1
    patience: int = 20

    def __call__(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """The optimiser's rates, until a validation lowers them; `steps` does not matter."""
        return PlateauScheduler(optimizer, self.mode, self.factor, self.patience, self.monitor)


@dataclass(frozen=True)
class OfTorch:
    """One of torch's own schedulers, stepped as all others are: once an optimiser step.

    make: the class with its settings. `total_steps` and `T_max` are the length of the run, unless
    they are among the settings. Raises ValueError for one that is stepped with a metric.
    """

    make: partial[LRScheduler]

    def __call__(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """torch's scheduler."""
        if issubclass(self.make.func, ReduceLROnPlateau):  # type: ignore[arg-type]
            raise ValueError("it is stepped with a metric: choose schedule=plateau")
        takes = inspect.signature(self.make.func).parameters
        lengths = {name: steps for name in ("total_steps", "T_max") if name in takes}
        return self.make(optimizer, **{**lengths, **self.make.keywords})


def ramp(step: int, length: float) -> float:
    """From 1/length up to 1, linearly; 1 where there is no warm-up."""
    return min(1.0, (step + 1) / length) if length > 0 else 1.0
