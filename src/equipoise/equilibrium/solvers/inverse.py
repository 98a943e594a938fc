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


def combine(rows: Tensor, weights: Tensor, added: Tensor) -> Tensor:
    """added + sum_i weights_i rows_i: (B, m, D), (B, m), (B, D) -> (B, D), in added's dtype."""
    weights = weights.unsqueeze(1)
    if rows.dtype != added.dtype:
        return added + torch.bmm(weights.to(rows.dtype), rows).squeeze(1).to(added.dtype)
    return torch.baddbmm(added.unsqueeze(1), weights, rows).squeeze(1)


@dataclass(frozen=True)
class LowRankInverse:
    """H = -I + sum_i u_i v_i^T, an estimate of (J_f - I)^-1, per sample.

    u, v: (B, m, D), the stored pairs (rows that were not filled are zero).
    """

    u: Tensor
    v: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """H x: (B, D) -> (B, D)."""
        return combine(self.u, row_products(self.v, x), -x)

    def apply_transposed(self, x: Tensor) -> Tensor:
        """H^T x: (B, D) -> (B, D), the product that a cotangent needs."""
        return combine(self.v, row_products(self.u, x), -x)
