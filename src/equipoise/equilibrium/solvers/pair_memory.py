"""A bounded memory of rank-one pairs, shared by the quasi-Newton methods."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.equilibrium.solvers.inverse import LowRankInverse


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per sample: (B, D), (B, D) -> (B, 1)."""
    return torch.linalg.vecdot(a, b).unsqueeze(1)


def reciprocal(curvature: Tensor) -> Tensor:
    """1 / curvature, and 0 where it vanishes: such a pair carries no information, H stays as is."""
    usable = curvature.abs() > torch.finfo(curvature.dtype).tiny
    return torch.where(usable, 1.0 / curvature, 0.0)


class PairMemory:
    """The pairs of H = -I + sum_i u_i v_i^T in two preallocated buffers (B, size, D).

    slot: the row that the next pair takes; once the memory is full it is that of the oldest pair.
    """

    def __init__(
        self, z0: Tensor, size: int, storage: torch.dtype, given: LowRankInverse | None = None
    ) -> None:
        """Buffers in the dtype `storage`; they start with the newest pairs of `given`.

        Raises ValueError where `given` is not of z0's batch and width.
        """
        batch, width = z0.shape
        self.size = size
        self.stored = 0
        self.u = torch.empty(batch, size, width, dtype=storage, device=z0.device)
        self.v = torch.empty_like(self.u)
        if given is not None:
            self._take(given.newest(size))

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
        """weights (B, m) of the kept rows, zero for the pair that the next one replaces."""
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

    def narrow(self, rows: Tensor) -> None:
        """Keep the pairs of these samples (b,)."""
        self.u, self.v = self.u[rows], self.v[rows]

    def inverse(self) -> LowRankInverse:
        """The H that the pairs make up; shares memory with the buffers."""
        return LowRankInverse(*self.kept(), oldest=self.slot if self.full else 0)

    def _unless(self, frozen: Tensor, new: Tensor, rows: Tensor) -> Tensor:
        old = rows[:, self.slot].to(new.dtype) if self.full else torch.zeros_like(new)
        return torch.where(frozen.unsqueeze(1), old, new)

    def _take(self, given: LowRankInverse) -> None:
        count = given.u.shape[1]
        wanted = (self.u.shape[0], self.u.shape[2])
        if (given.u.shape[0], given.u.shape[2]) != wanted:
            got = tuple(given.u.shape[::2])
            raise ValueError(f"the initial inverse is for states {got}, this one is {wanted}")
        self.u[:, :count] = given.u
        self.v[:, :count] = given.v
        self.stored = count
