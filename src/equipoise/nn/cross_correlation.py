"""The cross-correlation of two views' embeddings, and the loss that fits it to a given matrix."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.nn.over_processes import samples_of_all_processes, sum_over_processes

Normalization = Literal["unit_length", "unbiased", "batch_norm"]
BATCH_NORM_EPSILON = 1e-5


class Terms(NamedTuple):
    """The loss, its two sums before they are weighted, and the correlation (d, d)."""

    loss: Tensor
    on_diagonal: Tensor
    off_diagonal: Tensor
    correlation: Tensor


class RedundancyReduction(nn.Module):
    """scale (sum_i (1 - C_ii)^2 + weight sum_{i != j} (C_ij - target)^2), C the cross-correlation.

    The target 0 is Barlow Twins', -1 is that of the objective derived from the Hilbert-Schmidt
    independence criterion. `off_diagonal_weight` is the paper's lambda; None is 1/d, d being the
    width of the embeddings. Two positive samples of each row are needed, over all processes.

    Sources: 2103.03230, eq. 1 (target 0); 2104.13712, eq. 7 (target -1).
    """

    def __init__(
        self,
        off_diagonal_target: float = 0.0,
        off_diagonal_weight: float | None = None,
        normalization: Normalization = "unit_length",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.off_diagonal_target = off_diagonal_target
        self.off_diagonal_weight = off_diagonal_weight
        self.normalization: Normalization = normalization
        self.scale = scale

    def forward(self, first: Tensor, second: Tensor) -> Terms:
        """The terms for embeddings (N, d) of two views; under autocast computed in float32.

        Raises ValueError for fewer than two samples in all processes together.
        """
        return self.of_correlation(cross_correlation(first, second, self.normalization))

    def of_correlation(self, correlation: Tensor) -> Terms:
        """The terms for a cross-correlation (d, d)."""
        diagonal = correlation.diagonal()
        on_diagonal = (1 - diagonal).square().sum()
        # Not the sum of all minus that of the diagonal, which would lose digits.
        identity = torch.eye(len(correlation), dtype=torch.bool, device=correlation.device)
        apart = (correlation - self.off_diagonal_target).masked_fill(identity, 0.0)
        off_diagonal = apart.square().sum()
        weight = self.off_diagonal_weight
        weight = 1 / len(correlation) if weight is None else weight
        loss = self.scale * (on_diagonal + weight * off_diagonal)
        return Terms(loss, on_diagonal.detach(), off_diagonal.detach(), correlation.detach())


def cross_correlation(first: Tensor, second: Tensor, normalization: Normalization) -> Tensor:
    """C (d, d) = sum_n first_ni second_nj / N of standardised embeddings (N, d).

    normalization: how they are standardised. "unit_length": rows of length 1, then columns by
    their unbiased standard deviation (as published with 2104.13712; identical views have
    C_ii = (N - 1) / N). "unbiased": the same without the first step. "batch_norm": columns by
    their biased deviation, its square raised by 1e-5 (as published with 2103.03230; C_ii = 1).

    In a process group N counts the samples of all processes, and the means, deviations and C are
    those of all of them; gradients of it are meant to be averaged over the processes. A constant
    column has no correlation: it counts as 0, with gradient 0. Raises ValueError for fewer than
    two samples.
    """
    with torch.autocast(first.device.type, enabled=False):
        first, second = _at_least_float32(first), _at_least_float32(second)
        count = samples_of_all_processes(first)
        if count < 2:
            raise ValueError("a batch of one sample has no correlation: make it of two or more")
        rows = _standardised(first, count, normalization)
        columns = _standardised(second, count, normalization)
        return sum_over_processes(rows.T @ columns) / count


def _at_least_float32(embeddings: Tensor) -> Tensor:
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))


def _standardised(embeddings: Tensor, count: int, normalization: Normalization) -> Tensor:
    if normalization == "unit_length":
        embeddings = functional.normalize(embeddings, dim=1)
    centred = embeddings - sum_over_processes(embeddings.sum(dim=0)) / count
    squares = sum_over_processes(centred.square().sum(dim=0))
    if normalization == "batch_norm":
        return centred * (squares / count + BATCH_NORM_EPSILON).rsqrt()
    # The root has no derivative at 0, so a constant column is removed before it is taken. A
    # rounded mean m leaves it with squares of about N (m eps)^2.
    powers = sum_over_processes(embeddings.detach().square().sum(dim=0))
    constant = squares <= 16 * torch.finfo(squares.dtype).eps ** 2 * powers
    deviations = (squares.masked_fill(constant, 1.0) / (count - 1)).sqrt()
    return (centred / deviations).masked_fill(constant, 0.0)
