"""The BFGS estimate of an inverse Hessian from its latest secant pairs, in compact form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equipoise.equilibrium.low_rank import LowRankInverse, combine, row_products

LEAST_CURVATURE = 1e-12
"""A pair with s^T y below this part of |s| |y| tells of rounding errors alone."""


def product(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per sample, (B, D), (B, D) -> (B, 1), without a matrix in between."""
    return row_products(a.unsqueeze(1), b)


class CurvaturePairs:
    """H = gamma I + [S Y] M [S Y]^T, the BFGS inverse of pairs s and y = change of the gradient.

    With R_ij = s_i^T y_j where i is not younger than j, 0 elsewhere, and D its diagonal,
    M = [[R^-T (D + gamma Y^T Y) R^-1, -gamma R^-T], [-gamma R^-1, 0]].
    Source: Byrd, Nocedal and Schnabel 1994, eq. 2.6; gamma = s^T y / y^T y of the latest pair.

    s, y: (B, size, D). born: (B, size), the number of the store that brought a pair, -1 for rows
    that are empty: these are zero, with a 1 in R. A sample may be left out of a store: its H stays.
    Each sample loses its own oldest pair to a new one.
    """

    def __init__(self, z: Tensor, size: int) -> None:
        """No pairs yet, of samples like z (B, D)."""
        batch, width = z.shape
        self.s = z.new_zeros(batch, size, width)
        self.y = torch.zeros_like(self.s)
        self.born = torch.full((batch, size), -1, device=z.device)
        self.stores = 0
        self.gamma: Tensor
        self.refresh()

    def store(self, s: Tensor, y: Tensor, where: Tensor) -> None:
        """Take in a pair, (B, D) each, of the samples (B,) that offer one with curvature."""
        curvature, square = product(s, y), product(y, y)
        least = LEAST_CURVATURE * torch.sqrt(product(s, s) * square)
        taken = where.unsqueeze(1) & (curvature > least) & torch.isfinite(square)
        count = int(taken.sum())  # the short ways spare copies of rows that may be long
        self.stores += 1
        if count == 0:
            return
        at = torch.arange(len(s), device=s.device), self.born.argmin(dim=1)  # empty, or the oldest
        self.gamma = torch.where(taken, curvature / square, self.gamma)
        self.born[at] = torch.where(taken.squeeze(1), self.stores - 1, self.born[at])
        if count < len(s):
            s, y = torch.where(taken, s, self.s[at]), torch.where(taken, y, self.y[at])
        self.s[at], self.y[at] = s, y
        column = at[0], slice(None), at[1]
        self.s_y[at], self.s_y[column] = row_products(self.y, s), row_products(self.s, y)
        self.y_y[at] = self.y_y[column] = row_products(self.y, y)
        self._invert()

    def apply(self, x: Tensor) -> Tensor:
        """H x: (B, D) -> (B, D)."""
        along_y = self.r_inverse @ row_products(self.s, x).unsqueeze(2)
        inside = self.middle @ along_y - (self.gamma * row_products(self.y, x)).unsqueeze(2)
        along_s = (self.r_inverse.transpose(1, 2) @ inside).squeeze(2)
        scaled = combine(self.y, along_y.squeeze(2)).sub_(x).mul_(self.gamma)
        return combine(self.s, along_s).sub_(scaled)

    def inverse(self) -> LowRankInverse:
        """-H, the estimate of (J_f - I)^-1 of the descent map f; a copy."""
        rows = torch.cat([self.s, self.y], dim=1)
        corner = self.r_inverse.transpose(1, 2) @ self.middle @ self.r_inverse
        side = -self.gamma.unsqueeze(2) * self.r_inverse
        upper = torch.cat([corner, side.transpose(1, 2)], dim=2)
        lower = torch.cat([side, torch.zeros_like(side)], dim=2)
        core = -torch.cat([upper, lower], dim=1)
        return LowRankInverse(rows, rows, scale=self.gamma, core=core, definite=True)

    def with_room(self, size: int) -> CurvaturePairs:
        """The newest `size` pairs, a copy with room for as many."""
        pairs = CurvaturePairs(self.s[:, 0], size)
        kept = self.born.argsort(dim=1)[:, -size:]
        count = kept.shape[1]
        rows = torch.arange(len(kept), device=kept.device).unsqueeze(1)
        pairs.s[:, :count], pairs.y[:, :count] = self.s[rows, kept], self.y[rows, kept]
        age = torch.arange(count, device=kept.device)
        pairs.born[:, :count] = torch.where(self.born[rows, kept] < 0, -1, age)
        pairs.stores = count
        pairs.refresh()
        return pairs

    def moved(self, ratio: Tensor, stiffening: Tensor) -> CurvaturePairs:
        """The pairs of another objective in other coordinates, a copy.

        s -> ratio s, y -> y / ratio + stiffening ratio s, for ratio and stiffening (D,): the
        coordinates are ratio times as large, and a diagonal was added to the Hessian.
        """
        pairs = self.with_room(self.born.shape[1])
        pairs.s = pairs.s * ratio
        pairs.y = pairs.y / ratio + stiffening * pairs.s
        pairs.refresh()
        return pairs

    def state(self) -> dict[str, Any]:
        """The pairs as plain containers, for a checkpoint."""
        return {"s": self.s, "y": self.y, "born": self.born}

    @classmethod
    def of(cls, state: dict[str, Any], device: torch.device) -> CurvaturePairs:
        """The pairs of a checkpoint; their products are computed as they were."""
        pairs = cls(state["s"][:, 0].to(device), state["s"].shape[1])
        pairs.s, pairs.y = state["s"].to(device), state["y"].to(device)
        pairs.born = state["born"].to(device)
        pairs.stores = int(pairs.born.max()) + 1
        pairs.refresh()
        return pairs

    def keep_rows(self, rows: Tensor) -> None:
        """Keep the pairs of these samples (b,)."""
        for name in ("s", "y", "born"):
            setattr(self, name, getattr(self, name)[rows])
        self.refresh()

    def refresh(self) -> None:
        """Compute all products of the pairs anew; those that have lost their curvature leave.

        gamma is that of the latest pair that is left, 1 where none is.
        """
        lost = (self.s * self.y).sum(dim=2) <= 0
        self.born.masked_fill_(lost, -1)
        self.s.masked_fill_(lost.unsqueeze(2), 0.0)
        self.y.masked_fill_(lost.unsqueeze(2), 0.0)
        self.s_y = self.s @ self.y.transpose(1, 2)
        self.y_y = self.y @ self.y.transpose(1, 2)
        age, latest = self.born.max(dim=1, keepdim=True)
        curvature, square = (
            products.diagonal(dim1=1, dim2=2).gather(1, latest) for products in (self.s_y, self.y_y)
        )
        self.gamma = torch.where(age < 0, 1.0, curvature / square)
        self._invert()

    def _invert(self) -> None:
        """R^-1 and D + gamma Y^T Y."""
        older = self.born.unsqueeze(2) <= self.born.unsqueeze(1)
        empty = torch.diag_embed((self.born < 0).to(self.s.dtype))
        self.r_inverse = torch.linalg.inv_ex(torch.where(older, self.s_y, 0.0) + empty).inverse
        diagonal = torch.diag_embed(self.s_y.diagonal(dim1=1, dim2=2))
        self.middle = torch.addcmul(diagonal, self.gamma.unsqueeze(2), self.y_y)
