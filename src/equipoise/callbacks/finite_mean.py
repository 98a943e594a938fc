"""A running mean of scalars that never makes the host wait for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.callbacks.accumulator import Accumulator

COMPACT_EVERY = 64
"""How many scalars are kept as they came before they are summed in one operation."""


class FiniteMean(Accumulator):
    """Mean over the finite ones of the scalars added; NaN where none was finite.

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
        """Return the mean so far as a scalar tensor on the values' device."""
        self._compact()
        if self.total is None or self.count is None:
            return torch.tensor(float("nan"))
        return self.total / self.count

    def _compact(self) -> None:
        if not self.pending:
            return
        device = self.pending[-1].device  # those of a checkpoint are on the CPU
        values = torch.stack([value.to(device) for value in self.pending]).float()
        self.pending = []
        finite = torch.isfinite(values)
        self._accumulate(torch.where(finite, values, 0.0).sum(), finite.sum())

    def _accumulate(self, total: Tensor, count: Tensor) -> None:
        self.total = total if self.total is None else self.total.to(total.device) + total
        self.count = count if self.count is None else self.count.to(count.device) + count
