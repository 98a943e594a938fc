"""Models that are linear in the features; each has its own loss of the scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from equipoise.equilibrium import Equilibrium
from equipoise.models.regularized.model import RegularizedModel, Strengths, check_choice
from equipoise.models.regularized.table import Table, backward_product, forward_product

POWER_STEPS = 30
MARGIN = 1.05
"""Safety factor: the power method approaches the largest singular value from below."""


class LinearModel(RegularizedModel):
    """scores = features W + b; w holds W (F, outputs) row by row, then b, which is not penalised.

    outputs: 1 for two classes, else one per class. A subclass defines its loss of the score.
    """

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
        """Raises ValueError as `RegularizedModel`, and for strengths that it does not know."""
        self.outputs = 1 if classes == 2 else classes
        self.features, self.classes, self.intercept = features, classes, intercept
        groups = _groups(strengths, features, self.outputs, intercept)
        super().__init__(equilibrium, groups, log_strength, bounds, drawn_by)

    @property
    @abstractmethod
    def sharpness(self) -> float:
        """The greatest second derivative of the loss with respect to a sample's scores."""

    @abstractmethod
    def loss_and_slope(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each sample (N,), and its derivative in the scores (N, outputs)."""

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """(N,) the loss of each sample."""
        return self.loss_and_slope(scores, target)[0]

    def objective(self, w: Tensor, training: Table) -> tuple[Tensor, Tensor]:
        """Mean training loss (1,) and its gradient (1, D)."""
        loss, slope = self.loss_and_slope(self.scores(training, w), training["target"])
        return loss.mean().unsqueeze(0), self._pulled(training, slope)

    def gradient(self, w: Tensor, training: Table) -> Tensor:
        """Mean of features^T slope, (1, D)."""
        scores = self.scores(training, w)
        return self._pulled(training, self.loss_and_slope(scores, training["target"])[1])

    def scores(self, table: Table, w: Tensor) -> Tensor:
        """(N, outputs)."""
        count = self.features * self.outputs
        weights = w[0, :count].view(self.features, self.outputs)
        scores = forward_product(table, weights)
        return scores + w[0, count:] if self.intercept else scores

    def predicted(self, scores: Tensor) -> Tensor:
        """(N,) the class of the highest score; of two classes, the second if it is positive."""
        return (scores[:, 0] > 0).long() if self.outputs == 1 else scores.argmax(dim=1)

    def curvature(self, training: Table) -> float:
        """sharpness times the largest eigenvalue of [X 1]^T [X 1] / N, by the power method."""
        generator = torch.Generator().manual_seed(0)
        v = torch.rand(self.features, 1, generator=generator, dtype=torch.float64)
        v = v.to(self.coefficients.device)
        bias = size = torch.ones((), dtype=v.dtype, device=v.device)
        for _ in range(POWER_STEPS):
            u = forward_product(training, v) + bias * self.intercept
            v, bias = backward_product(training, u), u.sum() * self.intercept
            size = torch.sqrt(v.square().sum() + bias**2)
            v, bias = v / size, bias / size
        return self.sharpness * MARGIN * float(size) / len(training["target"])

    def _pulled(self, training: Table, slope: Tensor) -> Tensor:
        """features^T slope / N including the intercept, (1, D)."""
        slope = slope / len(slope)
        gradient = backward_product(training, slope).flatten()
        if self.intercept:
            gradient = torch.cat([gradient, slope.sum(dim=0)])
        return gradient.unsqueeze(0)


def _groups(strengths: Strengths, features: int, outputs: int, intercept: bool) -> Tensor:
    """(D,) which strength each coefficient takes."""
    choices = {
        "one": torch.zeros(features * outputs, dtype=torch.long),
        "feature": torch.arange(features).repeat_interleave(outputs),
        "coefficient": torch.arange(features * outputs),
    }
    check_choice("strengths", strengths, choices)
    unpenalized = torch.full((outputs * intercept,), -1, dtype=torch.long)
    return torch.cat([choices[strengths], unpenalized])
