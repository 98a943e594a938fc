"""Spectral normalisation: a linear map that stretches no vector by more than a bound."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.nn.computed_weight import ComputedConv2d, ComputedLinear, ComputedWeight

FIRST_ITERATIONS = 15
"""Power iterations at construction, which make the first estimate of the norm a good one."""


class SpectralWeight(ComputedWeight):
    """w = raw * min(1, bound / s), s = the largest singular value of `raw` as a matrix (out, rest).

    s = u^T raw v with u and v from the power iteration, one step of it each time that the weight is
    computed in training; gradients reach `raw` through s too. For a convolution s is the norm of
    the reshaped kernel, not that of the whole map (as in the paper). With a bound below 1 a map
    made of such weights and 1-Lipschitz activations contracts.

    Source: Miyato et al. 2018 (arXiv 1802.05957), algorithm 1; the minimum is Gouk et al. 2018
    (arXiv 1804.04368), equation 9.
    """

    left: Tensor
    right: Tensor

    def __init__(self, weight: Tensor, bound: float = 1.0) -> None:
        """Take the values of `weight` (out, ...); raises ValueError unless bound > 0."""
        super().__init__()
        if bound <= 0:
            raise ValueError(f"the bound of a spectral norm is positive, it is {bound}")
        self.bound = bound
        self.raw = nn.Parameter(weight.detach().clone())
        matrix = self._matrix()
        # Fixed numbers, so that building a layer draws nothing; a row of the matrix might be zero.
        start = torch.arange(1, matrix.shape[0] + 1, dtype=matrix.dtype, device=matrix.device)
        self.register_buffer("left", functional.normalize(start.cos(), dim=0))
        self.register_buffer("right", torch.zeros_like(matrix[0].detach()))
        self._iterate(FIRST_ITERATIONS)

    def compute(self) -> Tensor:
        """Return the bounded weight; in training the power iteration takes a step."""
        if self.training:
            self._iterate(1)
        # Copies, since the next step overwrites the buffers that a backward may still want.
        left, right = self.left.clone(), self.right.clone()
        norm = torch.dot(left, self._matrix() @ right)
        return self.raw * (self.bound / norm).clamp(max=1.0)

    def _matrix(self) -> Tensor:
        return self.raw.flatten(start_dim=1)

    @torch.no_grad()
    def _iterate(self, steps: int) -> None:
        matrix = self._matrix()
        for _ in range(steps):
            self.right.copy_(functional.normalize(matrix.mT @ self.left, dim=0))
            self.left.copy_(functional.normalize(matrix @ self.right, dim=0))


class SpectralConv2d(ComputedConv2d):
    """A convolution with a bounded weight, made from a plain one."""

    def __init__(self, convolution: nn.Conv2d, bound: float = 1.0) -> None:
        """Take over `convolution`; raises ValueError when it has a bias or padding by name."""
        super().__init__(convolution, lambda weight: SpectralWeight(weight, bound))


class SpectralLinear(ComputedLinear):
    """A linear map with a bounded weight, made from a plain one."""

    def __init__(self, linear: nn.Linear, bound: float = 1.0) -> None:
        super().__init__(linear, lambda weight: SpectralWeight(weight, bound))
