"""Statistics over many steps: means, fractions and quantiles that stay on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equipoise.equilibrium import SolveReport

COMPACT_EVERY = 64
"""How many scalars, or batches, are collected before they are summed in one operation."""


class Accumulator:
    """Base of statistics whose attributes are plain: numbers, tensors, lists of them.

    Values not summed yet are part of the state: another order of summing changes the last bits.
    """

    def state_dict(self) -> dict[str, Any]:
        """The attributes as plain values, nested accumulators included."""
        return {name: _plain(value) for name, value in vars(self).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        for name, value in state.items():
            attribute = getattr(self, name)
            if isinstance(attribute, Accumulator):
                attribute.load_state_dict(value)
            else:
                setattr(self, name, value)


def _plain(value: Any) -> Any:
    if isinstance(value, Accumulator):
        return value.state_dict()
    return list(value) if isinstance(value, list) else value


class FiniteMean(Accumulator):
    """Mean over the finite scalars among those added; NaN if none was finite.

    A step whose loss is not finite is skipped by `DivergenceGuard` and counted there; it must not
    turn the mean of a whole epoch into NaN. Values stay on their device until `mean` is read.
    """

    def __init__(self) -> None:
        self.pending: list[Tensor] = []
        self.total: Tensor | None = None
        self.count: Tensor | None = None

    def add(self, value: Tensor | float) -> None:
        """Add one scalar: a tensor of one element, or a number."""
        scalar = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
        self.pending.append(scalar)
        if len(self.pending) >= COMPACT_EVERY:
            self._compact()

    def absorb(self, other: FiniteMean) -> None:
        """Add everything that `other` has seen, in one go."""
        other._compact()
        if other.total is not None and other.count is not None:
            self._accumulate(other.total, other.count)

    def mean(self) -> Tensor:
        """The mean so far as a scalar tensor on the values' device."""
        self._compact()
        if self.total is None or self.count is None:
            return torch.tensor(float("nan"))
        return self.total / self.count

    def parts(self) -> Tensor:
        """(2,): the sum so far, and the number of scalars in it."""
        self._compact()
        if self.total is None or self.count is None:
            return torch.zeros(2)
        return torch.stack((self.total, self.count.to(self.total.dtype)))

    def take(self, parts: Tensor) -> None:
        """Continue from a sum and its number of scalars (2,), as `parts` gives them."""
        self.pending = []
        self.total, self.count = parts.unbind()

    def _compact(self) -> None:
        if not self.pending:
            return
        device = self.pending[-1].device  # values of a checkpoint are on the CPU
        values = torch.stack([value.to(device) for value in self.pending]).float()
        self.pending = []
        finite = torch.isfinite(values)
        self._accumulate(torch.where(finite, values, 0.0).sum(), finite.sum())

    def _accumulate(self, total: Tensor, count: Tensor) -> None:
        self.total = total if self.total is None else self.total.to(total.device) + total
        self.count = count if self.count is None else self.count.to(count.device) + count


class ResidualSample(Accumulator):
    """Residuals of all solves so far, thinned evenly once there are more than `capacity`.

    Up to `capacity` every residual is kept and quantiles are exact. Beyond it every second one is
    dropped, and of later batches only each `stride`-th is taken, so that early and late solves
    keep the same weight.
    """

    def __init__(self, capacity: int = 1 << 18) -> None:
        self.capacity = capacity
        self.stride = 1
        self.kept: Tensor | None = None
        self.pending: list[Tensor] = []

    def add(self, residual: Tensor) -> None:
        """Add the residuals (B,) of one batch."""
        self.pending.append(residual.detach())
        if len(self.pending) >= COMPACT_EVERY:
            self._compact()

    def absorb(self, other: ResidualSample) -> None:
        """Add every residual that `other` holds, thinned as it is there."""
        other._compact()
        if other.kept is not None:
            self.pending.append(other.kept)
            if len(self.pending) >= COMPACT_EVERY:
                self._compact()

    def quantiles(self, *probabilities: float) -> list[Tensor] | None:
        """The quantiles as scalars on the device; None if nothing was added.

        A residual that is not finite counts as infinite.
        """
        self._compact()
        if self.kept is None:
            return None
        where = torch.tensor(probabilities, device=self.kept.device)
        values = torch.quantile(self.kept.nan_to_num(nan=torch.inf, posinf=torch.inf), where)
        # Interpolation next to an infinite residual gives NaN.
        return list(values.nan_to_num(nan=torch.inf, posinf=torch.inf))

    def _compact(self) -> None:
        if not self.pending:
            return
        device = self.pending[-1].device  # values of a checkpoint are on the CPU
        parts = [part.to(device).reshape(-1).float() for part in self.pending]
        fresh = torch.cat(parts)[:: self.stride]
        self.pending = []
        self.kept = fresh if self.kept is None else torch.cat([self.kept.to(device), fresh])
        while self.kept.numel() > self.capacity:
            self.kept = self.kept[::2].clone()
            self.stride *= 2


class Fraction(Accumulator):
    """Share of true flags among all flags added, or the mean of numbers, counted on the device."""

    def __init__(self) -> None:
        self.pending: list[Tensor] = []
        self.hits: Tensor | None = None
        self.total = 0

    def add(self, flags: Tensor) -> None:
        """Add the flags (B,) of one batch."""
        self.pending.append(flags)
        self.total += flags.numel()
        if len(self.pending) >= COMPACT_EVERY:
            self._compact()

    def absorb(self, other: Fraction) -> None:
        """Add everything that `other` has counted."""
        other._compact()
        self._accumulate(other.hits)
        self.total += other.total

    def value(self) -> Tensor | None:
        """The share as a scalar on the device; None if nothing was added."""
        self._compact()
        return None if self.hits is None else self.hits / self.total

    def _compact(self) -> None:
        if self.pending:
            device = self.pending[-1].device  # values of a checkpoint are on the CPU
            hits = torch.cat([flags.to(device).reshape(-1) for flags in self.pending]).sum()
            self.pending = []
            self._accumulate(hits)

    def _accumulate(self, hits: Tensor | None) -> None:
        if hits is not None:
            self.hits = hits if self.hits is None else self.hits.to(hits.device) + hits


class SolveStatistics(Accumulator):
    """Evaluations, residuals, convergence and fall-backs of one direction of a layer.

    Evaluations are counted per batch, so `nfe_mean` weights batches equally; residuals and
    fractions are over samples. So is `nfe_per_sample`: the evaluations until a sample converged, or
    all of its batch's if it did not; a batch takes as many as its slowest sample.
    `nfe_spent_per_sample` counts the evaluations of f that included a sample: those of its batch,
    until compaction dropped the sample. It may exceed `nfe_mean` if the last batch is smaller.
    """

    def __init__(self) -> None:
        self.solves = 0
        self.evaluations = 0
        self.samples = 0
        self.spent = 0
        self.residuals = ResidualSample()
        self.converged = Fraction()
        self.fallback = Fraction()
        self.needed = Fraction()

    def add(self, report: SolveReport) -> None:
        """Add the report of one batch; nothing is read from the device."""
        self.solves += 1
        self.evaluations += report.nfe
        if report.residual is not None:
            self.residuals.add(report.residual)
            self._count(report, len(report.residual))
        if (converged := report.converged) is not None:
            self.converged.add(converged)
            if report.steps is not None:
                self.needed.add(torch.where(converged, report.steps, report.nfe))
        if report.fallback is not None:
            self.fallback.add(report.fallback)

    def absorb(self, other: SolveStatistics) -> None:
        """Add everything that `other` has seen."""
        self.solves += other.solves
        self.evaluations += other.evaluations
        self.samples += other.samples
        self.spent += other.spent
        self.residuals.absorb(other.residuals)
        self.converged.absorb(other.converged)
        self.fallback.absorb(other.fallback)
        self.needed.absorb(other.needed)

    def nfe_mean(self) -> float:
        """The evaluations of f (or vector-Jacobian products) per batch."""
        return self.evaluations / self.solves

    def nfe_spent_per_sample(self) -> float | None:
        """The rows that f was evaluated on, per sample; None if nothing was added."""
        return self.spent / self.samples if self.samples else None

    def forward_summary(self) -> dict[str, float | None]:
        """nfe_mean, nfe_per_sample and nfe_spent_per_sample, residuals, converged_fraction."""
        median, p95 = self.residuals.quantiles(0.5, 0.95) or (None, None)
        return {
            "nfe_mean": self.nfe_mean(),
            "nfe_per_sample": number(self.needed.value()),
            "nfe_spent_per_sample": self.nfe_spent_per_sample(),
            "residual_median": number(median),
            "residual_p95": number(p95),
            "converged_fraction": number(self.converged.value()),
        }

    def _count(self, report: SolveReport, samples: int) -> None:
        rows = report.sample_evaluations
        self.samples += samples
        self.spent += report.nfe * samples if rows is None else rows

    def backward_summary(self) -> dict[str, float | None]:
        """nfe_mean, residual_median and fallback_fraction as numbers.

        The residual is None for estimators that solve nothing; the fraction is 0 for those without
        a fall-back.
        """
        (median,) = self.residuals.quantiles(0.5) or (None,)
        return {
            "nfe_mean": self.nfe_mean(),
            "residual_median": number(median),
            "fallback_fraction": number(self.fallback.value()) or 0.0,
        }


def number(value: Tensor | None) -> float | None:
    """Read a scalar from the device; None stays None."""
    return None if value is None else value.item()
