"""The BFGS estimate of an inverse Hessian from its latest secant pairs, in compact form."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor

from equipoise.equilibrium.low_rank import LowRankInverse, combine, row_products

LEAST_CURVATURE = 1e-12
"""A pair with s^T y below this part of |s| |y| tells of rounding errors alone."""


def product(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per sample, (B, D), (B, D) -> (B, 1), without a matrix in between."""
    return row_products(a.unsqueeze(1), b)


def renewed(along: Tensor, columns: Tensor, s_x: Tensor, y_x: Tensor) -> Tensor:
    """`CurvaturePairs.along(x)` after a store, from what it was before, s^T x and y^T x (B, 1).

    columns: (B, 2), as `store` returns them.
    """
    at = columns.clamp(min=0)
    new = torch.where(columns < 0, along.gather(1, at), torch.cat([s_x, y_x], dim=1))
    return along.scatter(1, at, new)


class CurvaturePairs:
    """H = gamma I + [S Y] M [S Y]^T, the BFGS inverse of pairs s and y = change of the gradient.

    With R_ij = s_i^T y_j where i is not younger than j, 0 elsewhere, and D its diagonal,
    M = [[R^-T (D + gamma Y^T Y) R^-1, -gamma R^-T], [-gamma R^-1, 0]].
    Source: Byrd, Nocedal and Schnabel 1994, eq. 2.6; gamma = s^T y / y^T y of the latest pair.

    rows: (B, 2 size, D), those of s, then those of y. born: (B, size), the number of the store that
    brought a pair, -1 for rows that are empty: these are zero, with a 1 in R. A sample may be left
    out of a store: its H stays. Each sample loses its own oldest pair to a new one.

    For long states, reading all rows dominates the cost of a step, so the inner products of the
    rows with a vector, `along`, can be passed to whatever needs them.
    """

    def __init__(self, z: Tensor, size: int) -> None:
        """No pairs yet, of samples like z (B, D)."""
        batch, width = z.shape
        self.rows = z.new_zeros(batch, 2 * size, width)
        self.born = torch.full((batch, size), -1, device=z.device)
        self.stores = 0
        self.gamma: Tensor
        self.refresh()

    @property
    def size(self) -> int:
        """The number of pairs per sample that fit."""
        return self.born.shape[1]

    @property
    def s(self) -> Tensor:
        """(B, size, D), a part of the rows."""
        return self.rows[:, : self.size]

    @property
    def y(self) -> Tensor:
        """(B, size, D), a part of the rows."""
        return self.rows[:, self.size :]

    def along(self, x: Tensor) -> Tensor:
        """The inner products of all rows with x: (B, D) -> (B, 2 size)."""
        return row_products(self.rows, x)

    def store(self, s: Tensor, y: Tensor, where: Tensor, along_y: Tensor | None = None) -> Tensor:
        """Take in a pair, (B, D) each, of the samples (B,) that offer one with curvature.

        along_y: `along(y)` before the store, if known. Returns the columns of `along` that belong
        to the new s and y, (B, 2), -1 for a sample whose pairs stay.
        """
        curvature, square = product(s, y), product(y, y)
        least = LEAST_CURVATURE * torch.sqrt(product(s, s) * square)
        taken = where.unsqueeze(1) & (curvature > least) & torch.isfinite(square)
        count = int(taken.sum())  # the short ways spare copies of rows that may be long
        self.stores += 1
        slot = self.born.argmin(dim=1)  # an empty one, or that of the oldest
        columns = torch.where(taken, torch.stack([slot, slot + self.size], dim=1), -1)
        if count == 0:
            return columns
        samples = torch.arange(len(s), device=s.device)
        at = samples, slot
        self.gamma = torch.where(taken, curvature / square, self.gamma)
        self.born[at] = torch.where(taken.squeeze(1), self.stores - 1, self.born[at])
        if count < len(s):
            s, y = torch.where(taken, s, self.s[at]), torch.where(taken, y, self.y[at])
            along_y = None  # of another y where a sample keeps its own
        flat, row = self.rows.view(-1, s.shape[1]), samples * (2 * self.size) + slot
        flat.index_copy_(0, row, s).index_copy_(0, row + self.size, y)  # faster than by `at`
        column = at[0], slice(None), slot
        known = None if along_y is None else renewed(along_y, columns, curvature, square)
        s_y, y_y = (self.along(y) if known is None else known).split(self.size, dim=1)
        self.s_y[column], self.y_y[column], self.y_y[at] = s_y, y_y, y_y
        if count < len(slot):
            self._invert()
            return columns
        # [[R, c], [0, d]]^-1 = [[R^-1, -R^-1 c / d], [0, 1 / d]], and of the pair that leaves, the
        # oldest, R^-1 loses the row and the column as R does.
        self.r_inverse[at] = 0.0
        self.r_inverse[column] = 0.0
        last = (self.r_inverse @ s_y.unsqueeze(2)).squeeze(2).div_(-curvature)
        self.r_inverse[column] = last.scatter_(1, slot.unsqueeze(1), curvature.reciprocal())
        return columns

    def apply(self, x: Tensor, along: Tensor | None = None) -> Tensor:
        """H x: (B, D) -> (B, D); along: `along(x)`, if known."""
        s_x, y_x = (self.along(x) if along is None else along).split(self.size, dim=1)
        on_y = self.r_inverse @ s_x.unsqueeze(2)
        bent = (self.y_y @ on_y).squeeze(2).sub_(y_x).mul_(self.gamma)
        on_y = on_y.squeeze(2)
        inside = bent.addcmul_(self.s_y.diagonal(dim1=1, dim2=2), on_y)
        on_s = self.r_inverse.transpose(1, 2) @ inside.unsqueeze(2)
        weights = torch.cat([on_s.squeeze(2), -self.gamma * on_y], dim=1)
        return combine(self.rows, weights).addcmul_(self.gamma, x)

    def inverse(self) -> LowRankInverse:
        """-H, the estimate of (J_f - I)^-1 of the descent map f; a copy."""
        rows = self.rows.clone()
        middle = self.gamma.unsqueeze(2) * self.y_y
        middle.diagonal(dim1=1, dim2=2).add_(self.s_y.diagonal(dim1=1, dim2=2))
        corner = self.r_inverse.transpose(1, 2) @ middle @ self.r_inverse
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
        rows = torch.empty_like(self.rows)
        new_s, new_y = rows.split(self.size, dim=1)
        torch.mul(self.s, ratio, out=new_s)
        torch.div(self.y, ratio, out=new_y).addcmul_(stiffening, new_s)
        return self._with(rows, self.born.clone())

    def state(self) -> dict[str, Any]:
        """The pairs as plain containers, for a checkpoint."""
        return {"s": self.s, "y": self.y, "born": self.born}

    @classmethod
    def of(cls, state: dict[str, Any], device: torch.device) -> CurvaturePairs:
        """The pairs of a checkpoint; their products are computed as they were."""
        pairs = cls(state["s"][:, 0].to(device), state["s"].shape[1])
        rows = torch.cat([state["s"], state["y"]], dim=1).to(device)
        pairs = pairs._with(rows, state["born"].to(device))
        pairs.stores = int(pairs.born.max()) + 1
        return pairs

    def keep_rows(self, rows: Tensor) -> None:
        """Keep the pairs of these samples (b,)."""
        self.rows, self.born = self.rows[rows], self.born[rows]
        self.refresh()

    def refresh(self) -> None:
        """Compute all products of the pairs anew; those that have lost their curvature leave.

        gamma is that of the latest pair that is left, 1 where none is.
        """
        self.s_y = self.s @ self.y.transpose(1, 2)
        lost = (self.s_y.diagonal(dim1=1, dim2=2) <= 0) & (self.born >= 0)
        if bool(lost.any()):
            self.born = self.born.masked_fill(lost, -1)
            self.rows.masked_fill_(lost.repeat(1, 2).unsqueeze(2), 0.0)
            self.s_y = self.s @ self.y.transpose(1, 2)
        self.y_y = self.y @ self.y.transpose(1, 2)
        age, latest = self.born.max(dim=1, keepdim=True)
        curvature, square = (
            products.diagonal(dim1=1, dim2=2).gather(1, latest) for products in (self.s_y, self.y_y)
        )
        self.gamma = torch.where(age < 0, 1.0, curvature / square)
        self._invert()

    def _with(self, rows: Tensor, born: Tensor) -> CurvaturePairs:
        """The same with other rows."""
        pairs = copy(self)
        pairs.rows, pairs.born = rows, born
        pairs.refresh()
        return pairs

    def _invert(self) -> None:
        """R^-1, of all pairs anew."""
        older = self.born.unsqueeze(2) <= self.born.unsqueeze(1)
        empty = torch.diag_embed((self.born < 0).to(self.s.dtype))
        self.r_inverse = torch.linalg.inv_ex(torch.where(older, self.s_y, 0.0) + empty).inverse
