"""Logistic regression with learnt strengths of its penalty."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from equipoise.models.regularized.linear import LinearModel


class LogisticRegression(LinearModel):
    """Cross-entropy of two classes by one score, or of several by the softmax of their scores.

    Source: the bi-level problem of Pedregosa 2016 (arXiv 1602.02355), section 4, and of Ramzi et
    al. 2022 (arXiv 2106.00553), section 3.1; h is a mean over the samples here.
    """

    @property
    def sharpness(self) -> float:
        """Of the softmax: Boehning 1992."""
        return 0.25 if self.outputs == 1 else 0.5

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
