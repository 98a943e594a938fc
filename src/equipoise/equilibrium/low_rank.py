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

    Linear solvers return their solution in column order, for which the batched product would
    process one sample after the other.
    """
    left = weights.to(rows.dtype).contiguous().unsqueeze(1)
    return torch.bmm(left, rows).squeeze(1).to(weights.dtype)


def combine_minus(rows: Tensor, weights: Tensor, subtracted: Tensor) -> Tensor:
    """sum_i weights_i rows_i - subtracted: (B, m, D), (B, m), (B, D) -> (B, D)."""
    if rows.dtype != subtracted.dtype:
        return combine(rows, weights).sub_(subtracted)
    added = subtracted.unsqueeze(1)
    return torch.baddbmm(added, weights.unsqueeze(1), rows, beta=-1.0).squeeze(1)


def combine_plus(rows: Tensor, weights: Tensor, added: Tensor, out: Tensor) -> Tensor:
    """sum_i weights_i rows_i + added: (B, m, D), (B, m), (B, D) -> (B, D), written into `out`."""
    if rows.dtype != added.dtype:
        return torch.add(combine(rows, weights), added, out=out)
    three = added.unsqueeze(1), weights.contiguous().unsqueeze(1), rows
    torch.baddbmm(*three, out=out.unsqueeze(1))
    return out


@dataclass(frozen=True)
class LowRankInverse:
    """H = -scale I + sum_ij core_ij u_i v_j^T, an estimate of (J_f - I)^-1, per sample.

    u, v: (B, m, D), the stored pairs (rows that were not filled are zero). oldest: the row of the
    pair that was stored first; the others follow it cyclically. scale: (B, 1), None = 1. core:
    (B, m, m), None = identity. definite: whether -H is positive definite by construction.
    """

    u: Tensor
    v: Tensor
    oldest: int = 0
    scale: Tensor | None = None
    core: Tensor | None = None
    definite: bool = False

    def apply(self, x: Tensor) -> Tensor:
        """H x: (B, D) -> (B, D)."""
        weights = row_products(self.v, x)
        if self.core is not None:
            weights = torch.bmm(self.core.to(x.dtype), weights.unsqueeze(2)).squeeze(2)
        return combine_minus(self.u, weights, self._scaled(x))

    def apply_transposed(self, x: Tensor) -> Tensor:
        """H^T x: (B, D) -> (B, D), the product that a cotangent needs."""
        return self.transposed().apply(x)

    def transposed(self) -> LowRankInverse:
        """H^T, the estimate of (J_f^T - I)^-1, without a copy."""
        core = None if self.core is None else self.core.transpose(1, 2)
        return LowRankInverse(self.v, self.u, self.oldest, self.scale, core, self.definite)

    def select(self, rows: Tensor) -> LowRankInverse:
        """H of some samples (b,), a copy."""
        scale, core = (None if part is None else part[rows] for part in (self.scale, self.core))
        return LowRankInverse(self.u[rows], self.v[rows], self.oldest, scale, core, self.definite)

    def newest(self, count: int) -> LowRankInverse:
        """The latest `count` pairs at most, oldest first; a core becomes part of v."""
        if self.core is not None:
            return LowRankInverse(self.u, self._v_with_core(), self.oldest, self.scale).newest(
                count
            )
        if self.oldest:
            u, v = (rows.roll(-self.oldest, dims=1) for rows in (self.u, self.v))
            return LowRankInverse(u, v, scale=self.scale).newest(count)
        first = max(self.u.shape[1] - count, 0)
        return LowRankInverse(self.u[:, first:], self.v[:, first:], scale=self.scale)

    def in_units(self) -> tuple[LowRankInverse, Tensor | None]:
        """H / scale as a plain sum of pairs, which starts from -I, and the scale."""
        v = self._v_with_core()
        u = self.u if self.scale is None else self.u / self.scale.unsqueeze(2).to(self.u.dtype)
        return LowRankInverse(u, v, self.oldest), self.scale

    def _v_with_core(self) -> Tensor:
        return self.v if self.core is None else torch.bmm(self.core.to(self.v.dtype), self.v)

    def _scaled(self, x: Tensor) -> Tensor:
        return x if self.scale is None else x * self.scale


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per sample: (B, D), (B, D) -> (B, 1)."""
    return torch.linalg.vecdot(a, b).unsqueeze(1)


def reciprocal(curvature: Tensor) -> Tensor:
    """1 / curvature, and 0 where it vanishes: such a pair has no information, and H stays as is."""
    usable = curvature.abs() > torch.finfo(curvature.dtype).tiny
    return torch.where(usable, 1.0 / curvature, 0.0)


def check_shape(initial: LowRankInverse, z0: Tensor) -> None:
    """Raise ValueError if the inverse is not for states (B, D) like z0."""
    shape, other = tuple(z0.shape), tuple(initial.u.shape[::2])
    if other != shape:
        raise ValueError(f"the initial inverse is for states {other}, this one is {shape}")


class PairMemory:
    """The pairs of H = -I + sum_i u_i v_i^T in two preallocated buffers (B, size, D).

    slot: the row that the next pair takes; once the memory is full it is that of the oldest pair.
    """

    def __init__(
        self, z0: Tensor, size: int, storage: torch.dtype, initial: LowRankInverse | None = None
    ) -> None:
        """Buffers in the dtype `storage`; they start with the newest pairs of `initial`.

        Raises ValueError where `initial` is not of z0's batch and width.
        """
        batch, width = z0.shape
        self.size = size
        self.stored = 0
        self.u = torch.empty(batch, size, width, dtype=storage, device=z0.device)
        self.v = torch.empty_like(self.u)
        if initial is not None:
            self._take(initial.newest(size))

    @property
    def slot(self) -> int:
        """The row that the next pair takes."""
        return self.stored % self.size

    @property
    def full(self) -> bool:
        """Whether the next pair replaces one."""
        return self.stored >= self.size

    def kept(self) -> tuple[Tensor, Tensor]:
        """u and v, (B, m, D) each, views of the rows that are filled."""
        count = min(self.stored, self.size)
        return self.u[:, :count], self.v[:, :count]

    def without_oldest(self, weights: Tensor) -> Tensor:
        """The weights (B, m) of the kept rows, zero for the pair that the next one will replace."""
        if self.full:
            weights[:, self.slot] = 0.0
        return weights

    def store(self, u: Tensor, scale: Tensor, v: Tensor, frozen: Tensor | None) -> None:
        """Put scale (B, 1) times u (B, D), and v, into `slot`; frozen samples keep their H."""
        if frozen is None:
            torch.mul(u, scale, out=self.u[:, self.slot])
            self.v[:, self.slot] = v
        else:
            self.u[:, self.slot] = self._unless(frozen, u * scale, self.u)
            self.v[:, self.slot] = self._unless(frozen, v, self.v)
        self.stored += 1

    def keep_rows(self, rows: Tensor) -> None:
        """Keep the pairs of these samples (b,)."""
        self.u, self.v = self.u[rows], self.v[rows]

    def inverse(self) -> LowRankInverse:
        """The H that the pairs make up; shares memory with the buffers."""
        return LowRankInverse(*self.kept(), oldest=self.slot if self.full else 0)

    def _unless(self, frozen: Tensor, new: Tensor, rows: Tensor) -> Tensor:
        old = rows[:, self.slot].to(new.dtype) if self.full else torch.zeros_like(new)
        return torch.where(frozen.unsqueeze(1), old, new)

    def _take(self, initial: LowRankInverse) -> None:
        check_shape(initial, self.u[:, 0])
        count = initial.u.shape[1]
        self.u[:, :count] = initial.u
        self.v[:, :count] = initial.v
        self.stored = count
