"""Anderson acceleration (type II) of the fixed-point iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.equilibrium.solvers.flat_function import FlatFunction
from equipoise.equilibrium.solvers.inverse import combine, row_products
from equipoise.equilibrium.solvers.solver import Iteration, Solver


class AndersonIteration(Iteration):
    """The last `memory` values f(z_i) and residual vectors g_i, and their Gram matrix."""

    def __init__(self, z0: Tensor, memory: int, ridge: float, mixing: float) -> None:
        batch, width = z0.shape
        self.ridge = ridge
        self.mixing = mixing
        self.memory = memory
        self.seen = 0
        self.f = z0.new_empty(batch, memory, width)
        self.g = z0.new_empty(batch, memory, width)
        self.gram = torch.zeros(batch, memory, memory, dtype=torch.float64, device=z0.device)

    def advance(self, z: Tensor, fz: Tensor, g: Tensor, frozen: Tensor | None) -> Tensor:
        """sum_i a_i (f_i - (1 - mixing) g_i), where a minimises |sum_i a_i g_i|, sum_i a_i = 1."""
        kept = min(self.seen + 1, self.memory)
        self._store(kept, fz, g)
        self.seen += 1
        weights = self._weights(kept).to(z.dtype)
        mixed = combine(self.f[:, :kept], weights)
        if self.mixing != 1.0:
            mixed.sub_(combine(self.g[:, :kept], weights), alpha=1.0 - self.mixing)
        return mixed

    def room(self, spare: Tensor) -> Tensor:
        """The row of the oldest g."""
        return self.g[:, self.seen % self.memory]

    def narrow(self, rows: Tensor) -> None:
        """The window and the Gram matrix of these samples."""
        self.f, self.g, self.gram = self.f[rows], self.g[rows], self.gram[rows]

    def _store(self, kept: int, fz: Tensor, g: Tensor) -> None:
        """Overwrite the oldest f; g is in its row already, all that changes the Gram matrix."""
        slot = self.seen % self.memory
        self.f[:, slot] = fz
        row = row_products(self.g[:, :kept], g).to(self.gram.dtype)
        self.gram[:, slot, :kept] = row
        self.gram[:, :kept, slot] = row

    def _weights(self, kept: int) -> Tensor:
        """a = K^-1 1 / (1^T K^-1 1), with K the Gram matrix and a ridge relative to its diagonal.

        Solved in the variables a_i |g_i|, in which K has a unit diagonal, so that the recent small
        residuals are not drowned by the ridge of the old large ones.
        """
        gram = self.gram[:, :kept, :kept]
        norm = gram.diagonal(dim1=1, dim2=2).sqrt().clamp(min=torch.finfo(gram.dtype).tiny)
        cosines = gram / (norm.unsqueeze(2) * norm.unsqueeze(1))
        cosines.diagonal(dim1=1, dim2=2).add_(self.ridge)
        inverse_norm = norm.min(dim=1, keepdim=True).values / norm
        solved, _ = torch.linalg.solve_ex(cosines, inverse_norm)
        weights = solved * inverse_norm
        weights = weights / weights.sum(dim=1, keepdim=True)
        return self._plain_where_singular(weights)

    def _plain_where_singular(self, weights: Tensor) -> Tensor:
        """A sample whose system has no finite solution takes the plain step, its latest f."""
        latest = torch.zeros_like(weights)
        latest[:, (self.seen - 1) % self.memory] = 1.0
        solvable = torch.isfinite(weights).all(dim=1, keepdim=True)
        return torch.where(solvable, weights, latest)


@dataclass(frozen=True, kw_only=True)
class Anderson(Solver):
    """z <- sum_i a_i f(z_i) over the last `memory` iterates, with the a that least residual gives.

    For linear f equivalent to GMRES. ridge: relative to the diagonal of the Gram matrix of the
    residual vectors; mixing: 1 takes f(z_i), smaller values stay nearer to z_i.
    Memory: 2 x `memory` states. Source: Walker and Ni 2011, eq. 2.2; Anderson 1965.
    """

    name: ClassVar[str] = "anderson"

    memory: int = 5
    ridge: float = 1e-8
    mixing: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1 or self.ridge < 0 or not 0 < self.mixing <= 1:
            raise ValueError("memory must be at least 1, ridge not negative, mixing in (0, 1]")

    def start(self, z0: Tensor, function: FlatFunction) -> AndersonIteration:
        """Room for the window, never larger than the budget."""
        return AndersonIteration(z0, min(self.memory, self.max_steps), self.ridge, self.mixing)
