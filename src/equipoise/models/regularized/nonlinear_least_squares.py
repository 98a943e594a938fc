"""Nonlinear least squares for classes, with learnt strengths of its penalty."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from equipoise.models.regularized.linear import LinearModel


class NonlinearLeastSquares(LinearModel):
    """1/2 (sigmoid(score) - t)^2, t = 1 for the sample's class and 0 else, summed over the scores.

    Not convex: the coefficients are a stationary point near the start, zero at first.
    Source: Ramzi et al. 2022 (arXiv 2106.00553), appendix, regularised nonlinear least squares.
    """

    @property
    def sharpness(self) -> float:
        """Of 1/2 (s - t)^2, s the sigmoid: s'^2 + (s - t) s'' is at most 0.07703."""
        return 0.0771

    def loss_and_slope(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Half the squared distance (N,), and (s - t) s (1 - s) (N, outputs)."""
        s = torch.sigmoid(scores)
        distance = s - self._wanted(target)
        return 0.5 * distance.square().sum(dim=1), distance * s * (1 - s)

    def _wanted(self, target: Tensor) -> Tensor:
        """(N, outputs) of 0 and 1."""
        if self.outputs == 1:
            return target.unsqueeze(1).to(torch.float64)
        return functional.one_hot(target, self.outputs).to(torch.float64)
