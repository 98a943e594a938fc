"""Logistic regression with learnt strengths of its penalty."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from equipoise.equilibrium import Equilibrium
from equipoise.models.regularized.linear import LinearModel
from equipoise.models.regularized.model import Strengths


class LogisticRegression(LinearModel):
    """Cross-entropy of two classes by one score, or of several by the softmax of their scores.

    Source: the bi-level problem of Pedregosa 2016 (arXiv 1602.02355), section 4, and of Ramzi et
    al. 2022 (arXiv 2106.00553), section 3.1; h is a mean over the samples here.
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
        super().__init__(
            equilibrium, features, classes, strengths, log_strength, bounds, intercept, drawn_by
        )
        self.sharpness = 0.25 if self.outputs == 1 else 0.5  # Boehning 1992 for the softmax

    def loss_and_slope(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """-log p of the true class (N,), and p - t (N, outputs)."""
        if self.outputs == 1:
            wanted = target.unsqueeze(1).to(scores.dtype)
            loss = functional.softplus((1.0 - 2.0 * wanted) * scores).squeeze(1)
            return loss, torch.sigmoid(scores) - wanted
        log_p = functional.log_softmax(scores, dim=1)
        rows = target.unsqueeze(1)
        slope = log_p.exp().scatter_add(1, rows, log_p.new_full(rows.shape, -1.0))
        return -log_p.gather(1, rows).squeeze(1), slope
