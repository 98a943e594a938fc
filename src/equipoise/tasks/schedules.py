"""Learning-rate schedules over the whole run, stepped once per optimiser step.

Lengths are fractions of the run, so that a shortened run still sees the whole schedule. A
`Plateau` has no length, and is stepped once per validation.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, SupportsFloat

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

    The last rate is the larger of `minimum` and `final_factor` times the rate; a factor suits
    groups of parameters whose rates differ, such as those of LARS. t counts from the end of the
    warm-up, or with `from_first_step` from the first step; the warm-up then replaces the beginning
    of the cosine.

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
    published warm-up takes 4,000 of 100,000 steps: `warmup` 0.04.
    Source: Vaswani et al. 2017 (arXiv 1706.03762), eq. 3; in place of its factor width^-0.5 W^-0.5
    stands the optimiser's rate, the highest of the run.
    """

    warmup: float = 0.1

    def __call__(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """Factors of the base rate, by step."""
        start = max(1.0, self.warmup * steps)
        return LambdaLR(
            optimizer, lambda step: min(ramp(step, start), math.sqrt(start / (step + 1)))
        )


@dataclass(frozen=True)
class OneCycle:
    """Half a cosine up from `first_factor` times the rate, another down to `final_factor` times it.

    The rise takes the fraction `warmup` of the run. The momentum is constant, whereas in the source
    it falls while the rate rises.

    Source: Smith and Topin 2018 (arXiv 1708.07120), section 2, with the cosines, factors and
    warm-up of torch's OneCycleLR.
    """

    warmup: float = 0.3
    first_factor: float = 0.04
    final_factor: float = 4e-6

    def __call__(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """Factors of the base rate, by step."""
        top = max(0.0, self.warmup * steps - 1)

        def factor(step: int) -> float:
            if step < top:
                return between(self.first_factor, 1.0, step / top)
            return between(1.0, self.final_factor, (step - top) / max(1.0, steps - 1 - top))

        return LambdaLR(optimizer, factor)


@dataclass(frozen=True)
class Step:
    """Linear warm-up, then the rate, multiplied by `factor` at each of the `milestones`.

    milestones: fractions of the run, such as 0.5 and 0.75 in He et al. 2016 (arXiv 1512.03385).
    """

    warmup: float = 0.0
    milestones: Sequence[float] = (0.5, 0.75)
    factor: float = 0.1

    def __call__(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """Factors of the base rate, by step."""
        starts = [round(milestone * steps) for milestone in self.milestones]

        def factor(step: int) -> float:
            passed = sum(step >= start for start in starts)
            return float(ramp(step, self.warmup * steps) * self.factor**passed)

        return LambdaLR(optimizer, factor)


class PlateauScheduler(ReduceLROnPlateau):
    """torch's ReduceLROnPlateau after a linear warm-up over `length` steps.

    It is stepped without a value after each optimiser step, like all others, and with one after
    each validation. Validations within the warm-up are ignored.
    monitor: the metric whose value it is to be stepped with.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"],
        factor: float,
        patience: int,
        monitor: str,
        length: float = 0.0,
    ) -> None:
        self.length = length
        self.taken = 0
        super().__init__(optimizer, mode, factor, patience)
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.reached = list(self.base_lrs)
        self.monitor = monitor
        self._set_rates()

    def step(self, metrics: SupportsFloat | None = None, epoch: int | None = None) -> None:  # type: ignore[override]
        """Count a step; or judge a validation, and lower the rates if patience has run out."""
        if metrics is None:
            self.taken += 1
        elif self.taken >= self.length:
            super().step(metrics, epoch)
        self._set_rates()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state; the warm-up has the length that is configured now."""
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        earlier = {"reached": rates}  # for states from before there was a warm-up
        super().load_state_dict({**earlier, **state_dict, "length": self.length})

    def _reduce_lr(self, epoch: int) -> None:
        small = [rate - rate * self.factor <= self.eps for rate in self.reached]
        pairs = zip(self.reached, small, strict=True)
        self.reached = [rate if stays else rate * self.factor for rate, stays in pairs]

    def _set_rates(self) -> None:
        factor = ramp(self.taken, self.length)
        self._last_lr = [rate * factor for rate in self.reached]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


@dataclass(frozen=True)
class Plateau:
    """Multiplies the rate by `factor` after more than `patience` validations without improvement.

    A linear warm-up over the fraction `warmup` of the run comes first; its validations do not
    count. Only a value more than one part in 10,000 below (mode "min") or above ("max") the best
    of `monitor` so far is an improvement. An epoch has one validation unless the trainer says
    otherwise.
    Source: the code of Tsai et al. 2019 (arXiv 1906.00295), which takes torch's ReduceLROnPlateau.
    """

    monitor: str
    mode: Literal["min", "max"] = "min"
    factor: float = 0.1
    patience: int = 20
    warmup: float = 0.0

    def __call__(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """The optimiser's rates, until a validation lowers them."""
        length = self.warmup * steps if self.warmup else 0.0
        return PlateauScheduler(
            optimizer, self.mode, self.factor, self.patience, self.monitor, length
        )


def between(first: float, last: float, progress: float) -> float:
    """Half a cosine from `first` to `last`; progress: from 0 to 1; larger values count as 1."""
    return last + (first - last) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


@dataclass(frozen=True)
class OfTorch:
    """One of torch's own schedulers, stepped like all others: once per optimiser step.

    make: the class with its settings. `total_steps` and `T_max` are the length of the run, unless
    they are among the settings. Raises ValueError for a scheduler that is stepped with a metric.
    """

    make: partial[LRScheduler]

    def __call__(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """torch's scheduler."""
        if issubclass(self.make.func, ReduceLROnPlateau):  # type: ignore[arg-type]
            raise ValueError("this scheduler is stepped with a metric: choose schedule=plateau")
        takes = inspect.signature(self.make.func).parameters
        lengths = {name: steps for name in ("total_steps", "T_max") if name in takes}
        return self.make(optimizer, **{**lengths, **self.make.keywords})


def ramp(step: int, length: float) -> float:
    """From 1/length up to 1, linearly; 1 where there is no warm-up."""
    return min(1.0, (step + 1) / length) if length > 0 else 1.0
