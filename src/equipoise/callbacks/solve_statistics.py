"""Statistics over many solves of equilibrium layers."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.callbacks.accumulator import Accumulator
from equipoise.callbacks.residual_sample import ResidualSample
from equipoise.equilibrium import SolveReport

COMPACT_EVERY = 64
"""How many batches of flags are kept as they came before they are counted."""


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
        """Return the share as a scalar on the device; None while nothing was added."""
        self._compact()
        return None if self.hits is None else self.hits / self.total

    def _compact(self) -> None:
        if self.pending:
            device = self.pending[-1].device  # those of a checkpoint are on the CPU
            hits = torch.cat([flags.to(device).reshape(-1) for flags in self.pending]).sum()
            self.pending = []
            self._accumulate(hits)

    def _accumulate(self, hits: Tensor | None) -> None:
        if hits is not None:
            self.hits = hits if self.hits is None else self.hits.to(hits.device) + hits


class SolveStatistics(Accumulator):
    """Evaluations, residuals, convergence and fall-backs of one direction of a layer.

    The number of evaluations belongs to a batch, so `nfe_mean` weights batches equally; residuals
    and fractions are over samples. So is `nfe_per_sample`: a sample needs the evaluations up to its
    convergence, or all of its batch's, and the batch goes on until its slowest sample is done.
    """

    def __init__(self) -> None:
        self.solves = 0
        self.evaluations = 0
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
        self.residuals.absorb(other.residuals)
        self.converged.absorb(other.converged)
        self.fallback.absorb(other.fallback)
        self.needed.absorb(other.needed)

    def nfe_mean(self) -> float:
        """Return the evaluations of f (or vector-Jacobian products) per batch."""
        return self.evaluations / self.solves

    def forward_summary(self) -> dict[str, float | None]:
        """Return nfe_mean and nfe_per_sample, residual_median and _p95, converged_fraction."""
        median, p95 = self.residuals.quantiles(0.5, 0.95) or (None, None)
        return {
            "nfe_mean": self.nfe_mean(),
            "nfe_per_sample": number(self.needed.value()),
            "residual_median": number(median),
            "residual_p95": number(p95),
            "converged_fraction": number(self.converged.value()),
        }

    def backward_summary(self) -> dict[str, float | None]:
        """Return nfe_mean, residual_median and fallback_fraction as numbers.

        The residual is None for estimators that solve nothing; the fraction is 0 for those that
        know no fall-back.
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
