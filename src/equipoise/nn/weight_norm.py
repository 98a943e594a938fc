"""Weight normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equipoise.nn.computed_weight import ComputedConv2d, ComputedLinear, ComputedWeight


class NormalisedWeight(ComputedWeight):
    """A weight split into length and direction, w = length * direction / ||direction||.

    The norm runs over all dimensions but the first, so `length` is (out, 1, ...) and `direction`
    has the weight's shape. The length starts at the norm: the weight keeps its first value.

    Source: Salimans and Kingma 2016, "Weight normalization", equation 2.
    """

    def __init__(self, weight: Tensor) -> None:
        """Split `weight` (out, ...)."""
        super().__init__()
        self.direction = nn.Parameter(weight.detach().clone())
        self.length = nn.Parameter(self._norm().detach().clone())

    def compute(self) -> Tensor:
        """Return length * direction / ||direction||."""
        return self.direction * (self.length / self._norm())

    def _norm(self) -> Tensor:
        dimensions = tuple(range(1, self.direction.dim()))
        return torch.linalg.vector_norm(self.direction, dim=dimensions, keepdim=True)


class NormalisedConv2d(ComputedConv2d):
    """A convolution with a normalised weight, made from a plain one whose values it takes over."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        """Take over `convolution`; raises ValueError when it has a bias or padding by name."""
        super().__init__(convolution, NormalisedWeight)


class NormalisedLinear(ComputedLinear):
    """A linear map with a normalised weight, made from a plain one whose values it takes over."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear, NormalisedWeight)
