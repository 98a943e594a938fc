"""Kernel ridge regression on classes, with learnt penalty and length scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.equilibrium import Equilibrium
from equipoise.models.regularized.model import RegularizedModel, check_choice
from equipoise.models.regularized.table import Table


class KernelRidge(RegularizedModel):
    """scores(x) = sum_i k(x, x_i) w_i, k(x, x') = exp(-1/2 mean_f exp(log_scale_f) (x_f - x'_f)^2).

    The inner objective is the dual one, 1/(2N) w^T K w - w^T t / N + 1/2 exp(lambda) |w|^2 with t =
    1 for the sample's class and -1 otherwise: its minimum (K + N exp(lambda) I)^-1 t is that of the
    ridge problem, and its Hessian is never singular, though K may be. The outer variables are
    lambda, one in all or one per training sample, and log_scale, one in all or one per feature.
    Source: Saunders, Gammerman and Vovk 1998, eq. 7.
    """

    dense_only = True
    head_parts = ("coefficients", "support")

    def __init__(
        self,
        *,
        equilibrium: Equilibrium,
        features: int,
        classes: int,
        training_rows: int,
        strengths: Literal["one", "coefficient"] = "one",
        scales: Literal["one", "feature"] = "one",
        log_strength: float = 0.0,
        log_scale: float = 0.0,
        bounds: Sequence[float] = (-12.0, 12.0),
        drawn_by: int | None = None,
    ) -> None:
        """Raises ValueError as `RegularizedModel`, also for log_scale, and for unknown choices."""
        check_choice("strengths", strengths, ("one", "coefficient"))
        check_choice("scales", scales, ("one", "feature"))
        self.outputs = 1 if classes == 2 else classes
        count = training_rows * self.outputs
        groups = torch.arange(count) if strengths == "coefficient" else torch.zeros(count).long()
        super().__init__(equilibrium, groups, log_strength, bounds, drawn_by)
        self.check_start("log_scale", log_scale)
        size = features if scales == "feature" else 1
        start = torch.full((size,), float(log_scale), dtype=torch.float64)
        self.log_scale = nn.Parameter(start)
        self.support: Tensor
        support = torch.zeros(training_rows, features, dtype=torch.float64)
        self.register_buffer("support", support)
        self._kernel = torch.empty(0)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the latest solve's kernel, which has a graph and cannot be copied."""
        return {**self.__dict__, "_kernel": torch.empty(0)}

    def prepare(self, training: Table) -> None:
        """Keep the training samples, and their kernel for this solve."""
        self.support = training["features"]
        self._kernel = self.kernel(self.support)

    def curvature(self, training: Table) -> float:
        """No eigenvalue of K / N exceeds its trace, 1."""
        return 1.0

    def objective(self, w: Tensor, training: Table) -> tuple[Tensor, Tensor]:
        """1/(2N) w^T K w - w^T t / N, (1,), and its gradient (1, D)."""
        gradient, weights = self._difference(w, training, self._kernel.detach())
        pulled = 0.5 * weights * (gradient - self.wanted(training["target"]) / len(weights))
        return pulled.sum().unsqueeze(0), gradient.flatten().unsqueeze(0)

    def gradient(self, w: Tensor, training: Table) -> Tensor:
        """(K w - t) / N, (1, D)."""
        return self._difference(w, training, self._kernel)[0].flatten().unsqueeze(0)

    def scores(self, table: Table, w: Tensor) -> Tensor:
        """(N, outputs)."""
        return self.kernel(table["features"]) @ w.view(-1, self.outputs)

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """(N,) half the squared distance to the target."""
        return 0.5 * (scores - self.wanted(target)).square().sum(dim=1)

    def predicted(self, scores: Tensor) -> Tensor:
        """(N,) the class of the highest score; of two classes, the second if it is positive."""
        return (scores[:, 0] > 0).long() if self.outputs == 1 else scores.argmax(dim=1)

    def kernel(self, features: Tensor) -> Tensor:
        """k of every sample (N, F) with every training sample, (N, training_rows)."""
        scale = torch.exp(0.5 * self.log_scale) / features.shape[1] ** 0.5
        a, b = features * scale, self.support * scale
        squares = a.square().sum(dim=1, keepdim=True) + b.square().sum(dim=1) - 2 * (a @ b.T)
        return torch.exp(-0.5 * squares.clamp(min=0.0))

    def wanted(self, target: Tensor) -> Tensor:
        """(N, outputs) of -1 and 1."""
        if self.outputs == 1:
            return 2.0 * target.unsqueeze(1).to(torch.float64) - 1.0
        return 2.0 * functional.one_hot(target, self.outputs).to(torch.float64) - 1.0

    def _difference(self, w: Tensor, training: Table, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """(K w - t) / N and w, (N, outputs) each."""
        weights = w.view(-1, self.outputs)
        return (kernel @ weights - self.wanted(training["target"])) / len(weights), weights
