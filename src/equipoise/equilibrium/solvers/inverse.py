"""The low-rank quasi-Newton estimate of the inverse Jacobian, and products with its rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def row_products(rows: Tensor, x: Tensor) -> Tensor:
    """<rows_i, x> for every memory row: (B, m, D), (B, D) -> (B, m), in x's dtype.

    The vector stands on the left because the batched product with a transposed matrix streams the
    rows once; the other order is ten times slower in common CPU libraries.
    """
    return torch.bmm(x.to(rows.dtype).unsqueeze(1), rows.transpose(1, 2)).squeeze(1).to(x.dtype)


def combine(rows: Tensor, weights: Tensor) -> Tensor:
    """sum_i weights_i rows_i: (B, m, D), (B, m) -> (B, D), in the weights' dtype.

    Linear solvers return their solution column by column; the batched product would then take one
    sample after the other.
    """
    left = weights.to(rows.dtype).contiguous().unsqueeze(1)
    return torch.bmm(left, rows).squeeze(1).to(weights.dtype)


def combine_minus(rows: Tensor, weights: Tensor, subtracted: Tensor) -> Tensor:
    """sum_i weights_i rows_i - subtracted: (B, m, D), (B, m), (B, D) -> (B, D)."""
    if rows.dtype != subtracted.dtype:
        return combine(rows, weights).sub_(subtracted)
    added = subtracted.unsqueeze(1)
    return torch.baddbmm(added, weights.unsqueeze(1), rows, beta=-1.0).squeeze(1)


@dataclass(frozen=True)
class LowRankInverse:
    """H = -I + sum_i u_i v_i^T, an estimate of (J_f - I)^-1, per sample.

    u, v: (B, m, D), the stored pairs (rows that were not filled are zero). oldest: the row of the
    pair that was stored first; the others follow it cyclically.
    """

    u: Tensor
    v: Tensor
    oldest: int = 0

    def apply(self, x: Tensor) -> Tensor:
        """H x: (B, D) -> (B, D)."""
        return combine_minus(self.u, row_products(self.v, x), x)

    def apply_transposed(self, x: Tensor) -> Tensor:
        """H^T x: (B, D) -> (B, D), the product that a cotangent needs."""
        return combine_minus(self.v, row_products(self.u, x), x)

    def transposed(self) -> LowRankInverse:
        """H^T, the estimate of (J_f^T - I)^-1, without a copy."""
        return LowRankInverse(self.v, self.u, self.oldest)

    def select(self, rows: Tensor) -> LowRankInverse:
        """H of some samples (b,), a copy."""
        return LowRankInverse(self.u[rows], self.v[rows], self.oldest)

    def newest(self, count: int) -> LowRankInverse:
        """The latest `count` pairs at most, oldest first."""
        if self.oldest:
            u, v = (rows.roll(-self.oldest, dims=1) for rows in (self.u, self.v))
            return LowRankInverse(u, v).newest(count)
        first = max(self.u.shape[1] - count, 0)
        return LowRankInverse(self.u[:, first:], self.v[:, first:])
