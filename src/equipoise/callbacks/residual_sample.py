"""A bounded sample of residuals that stays on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.callbacks.accumulator import Accumulator

COMPACT_EVERY = 64
"""How many batches are kept as they came before they are joined."""


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
        """Add everything that `other` holds; its own thinning is kept as it is."""
        other._compact()
        if other.kept is not None:
            self.pending.append(other.kept)
            if len(self.pending) >= COMPACT_EVERY:
                self._compact()

    def quantiles(self, *probabilities: float) -> list[Tensor] | None:
        """Return the quantiles as scalars on the device; None while nothing was added.

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
        device = self.pending[-1].device  # those of a checkpoint are on the CPU
        parts = [part.to(device).reshape(-1).float() for part in self.pending]
        fresh = torch.cat(parts)[:: self.stride]
        self.pending = []
        self.kept = fresh if self.kept is None else torch.cat([self.kept.to(device), fresh])
        while self.kept.numel() > self.capacity:
            self.kept = self.kept[::2].clone()
            self.stride *= 2
