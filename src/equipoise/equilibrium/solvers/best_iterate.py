"""The best iterate of every sample, kept without reading the device and without a masked copy."""

from __future__ import annotations

import torch
from torch import Tensor


class BestIterate:
    """Two rows a sample: one holds its best iterate, the next iterate goes into the other one.

    An improvement only swaps the two, so an iterate costs one copy whatever the outcome, and values
    that are not finite are never mixed with those that are.
    """

    def __init__(self, z0: Tensor) -> None:
        """The best of every sample is z0 (B, D) until `offer` is told better."""
        batch, width = z0.shape
        samples = torch.arange(batch, device=z0.device)
        self.rows = z0.new_empty(2 * batch, width)
        self.rows[batch:] = z0
        self.free = samples  # row of a sample that the next iterate takes
        self.both = 2 * samples + batch  # sum of the two rows of a sample

    def offer(self, z: Tensor, improved: Tensor) -> None:
        """Take z (B, D) as the best where improved (B,)."""
        self.rows.index_copy_(0, self.free, z)
        self.free = torch.where(improved, self.both - self.free, self.free)

    def get(self) -> Tensor:
        """The best iterates so far (B, D), a copy."""
        return self.rows.index_select(0, self.both - self.free)
