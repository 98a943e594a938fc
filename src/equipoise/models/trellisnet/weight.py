"""The weights of a trellis network's two taps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.nn import ComputedWeight
from equipoise.nn.computed_weight import ComputedLinear


class TapWeight(ComputedWeight):
    """A weight (out, 2 in) on [features at t - d | features at t], which may be normalised.

    w = length * direction / ||direction|| by rows, or `direction` itself. In training, entries of
    the first half of `direction` are dropped with probability `drop`, once each time that the
    weight is computed, and the rest of that half is scaled up.

    Source: Bai et al. 2019 (arXiv 1810.06682), section 5, after Merity et al. 2018 (1708.02182).
    """

    def __init__(self, weight: Tensor, *, normalised: bool, drop: float) -> None:
        """Take the values of `weight`; raises ValueError when `drop` lies outside [0, 1)."""
        super().__init__()
        if not 0 <= drop < 1:
            raise ValueError(f"weight_drop lies in [0, 1), it is {drop}")
        self.drop = drop
        self.direction = nn.Parameter(weight.detach().clone())
        self.length = nn.Parameter(row_norms(self.direction).detach()) if normalised else None

    def compute(self) -> Tensor:
        """Return the weight; in training with a new mask."""
        direction = self._dropped()
        if self.length is None:
            return direction
        return direction * (self.length / row_norms(direction))

    def _dropped(self) -> Tensor:
        if not self.training or self.drop == 0:
            return self.direction
        earlier, present = self.direction.chunk(2, dim=1)
        return torch.cat((functional.dropout(earlier, self.drop), present), dim=1)


def tap_linear(
    source: int, target: int, *, bias: bool, normalised: bool, drop: float
) -> ComputedLinear:
    """Return a map (..., 2 source) -> (..., target) with PyTorch's first weights and no bias yet.

    At the published widths these are as large as the published draw from N(0, 0.01).
    """
    plain = nn.Linear(2 * source, target, bias=bias)
    if bias:
        nn.init.zeros_(plain.bias)
    return ComputedLinear(plain, lambda w: TapWeight(w, normalised=normalised, drop=drop))


def row_norms(weight: Tensor) -> Tensor:
    """(out, in) -> (out, 1)."""
    return torch.linalg.vector_norm(weight, dim=1, keepdim=True)
