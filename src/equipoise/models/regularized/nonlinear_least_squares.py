"""Nonlinear least squares for classes, with learnt strengths of its penalty."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from equipoise.equilibrium import Equilibrium
from equipoise.models.regularized.linear import LinearModel
from equipoise.models.regularized.model import Strengths


class NonlinearLeastSquares(LinearModel):
    """1/2 (sigmoid(score) - t)^2, t = 1 for the sample's class and 0 else, summed over the scores.

    Not convex: the coefficients are a stationary point near the start, zero at first.
    Source: Ramzi et al. 2022 (arXiv 2106.00553), appendix, regularised nonlinear least squares.
    """

    sharpness = 0.0771
    """Of 1/2 (s - t)^2, s the sigmoid: s'^2 + (s - t) s'' is at most 0.07703."""

    def __init__(
        self,
        *,
        equilibrium: Equilibrium,
        features: int,
        classes: int,
        strengths: Strengths = "one",
        log_strength: float = 0.0,
        bounds: Sequence[float] = (-12.0, 12.0),
        intercept: bool = True,
        drawn_by: int | None = None,
    ) -> None:
        super().__init__(
            equilibrium, features, classes, strengths, log_strength, bounds, intercept, drawn_by
        )

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
