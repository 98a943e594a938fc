"""Anderson acceleration (type II) of the fixed-point iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.equilibrium.flat_function import FlatFunction
from equipoise.equilibrium.iteration import Iteration
from equipoise.equilibrium.low_rank import combine, row_products
from equipoise.equilibrium.small_systems import window_weights
from equipoise.equilibrium.solvers.solver import Solver


class AndersonIteration(Iteration):
    """The last `memory` values f(z_i) and residuals g_i, the cosines of these, and 1 / |g_i|."""

    def __init__(self, z0: Tensor, memory: int, ridge: float, mixing: float) -> None:
        batch, width = z0.shape
        self.ridge = ridge
        self.mixing = mixing
        self.memory = memory
        self.seen = 0
        self.f = z0.new_empty(batch, memory, width)
        self.g = z0.new_empty(batch, memory, width)
        self.cosines = z0.new_zeros(batch, memory, memory, dtype=torch.float64)
        self.inverse_norm = z0.new_zeros(batch, memory, dtype=torch.float64)
        # Row i: the weights of the plain step to f_i.
        self.plain = torch.eye(memory, dtype=torch.float64, device=z0.device)

    def advance(self, z: Tensor, fz: Tensor, g: Tensor, frozen: Tensor | None) -> Tensor:
        """sum_i a_i (f_i - (1 - mixing) g_i), where a minimises |sum_i a_i g_i|, sum_i a_i = 1."""
        kept = min(self.seen + 1, self.memory)
        slot = self.seen % self.memory
        self.f[:, slot] = fz
        products = row_products(self.g[:, :kept], g)
        self.seen += 1
        plain = self.plain[slot, :kept]
        weights = window_weights(products, self.cosines, self.inverse_norm, slot, self.ridge, plain)
        mixed = combine(self.f[:, :kept], weights)
        if self.mixing != 1.0:
            mixed.sub_(combine(self.g[:, :kept], weights), alpha=1.0 - self.mixing)
        return mixed

    def residual_buffer(self, default: Tensor) -> Tensor:
        """The row of the oldest g."""
        return self.g[:, self.seen % self.memory]

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only the rows of these samples."""
        self.f, self.g = self.f[rows], self.g[rows]
        self.cosines, self.inverse_norm = self.cosines[rows], self.inverse_norm[rows]


@dataclass(frozen=True, kw_only=True)
class Anderson(Solver):
    """z <- sum_i a_i f(z_i) over the last `memory` iterates, with a of least residual.

    For linear f equivalent to GMRES. ridge: relative to the diagonal of the Gram matrix of the
    residual vectors; mixing: 1 uses f(z_i), smaller values stay closer to z_i.
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
        """Allocate the window, never larger than the budget."""
        return AndersonIteration(z0, min(self.memory, self.max_steps), self.ridge, self.mixing)
