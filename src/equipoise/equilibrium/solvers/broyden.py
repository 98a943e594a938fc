"""Broyden's good method with limited memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from equipoise.equilibrium.flat_function import FlatFunction
from equipoise.equilibrium.iteration import Iteration
from equipoise.equilibrium.low_rank import (
    LowRankInverse,
    PairMemory,
    combine_minus,
    inner,
    reciprocal,
    row_products,
)
from equipoise.equilibrium.solvers.solver import Solver

Storage = Literal["float32", "float64", "bfloat16"]


class BroydenIteration(Iteration):
    """H = -I + sum_i u_i v_i^T, an estimate of (J_f - I)^-1, whose oldest pair is dropped.

    The pair that the new one replaces leaves H *before* the update is computed, so that the secant
    condition H y = s holds for the H that is stored.
    """

    def __init__(self, pairs: PairMemory) -> None:
        self.pairs = pairs
        self.g_products: Tensor | None = None  # <v_i, g> of the latest g
        self.step: Tensor | None = None  # s = -H g, the latest step

    def advance(self, z: Tensor, fz: Tensor, g: Tensor, frozen: Tensor | None) -> Tensor:
        """z - H g, after H has taken in the pair of the step that led here."""
        if self.step is None:
            descent = self._first_product(g)
        else:
            descent = self._updated_product(g, self.step, frozen)
        self.step = descent.neg_()
        return z + self.step

    def _first_product(self, g: Tensor) -> Tensor:
        """H g with the H that the solve starts from."""
        u, v = self.pairs.kept()
        if u.shape[1] == 0:
            return g.neg()
        self.g_products = row_products(v, g)
        return combine_minus(u, self.g_products, g)

    def _updated_product(self, g: Tensor, s: Tensor, frozen: Tensor | None) -> Tensor:
        """Update H by s and y = g - g_old, and return the new H g.

        u = (s - H y) / (s^T H y) and v = H^T s; since H g_old = -s, s - H y is -H g, so the product
        that the step needs serves the update too.
        """
        u, v = self.pairs.kept()
        g_products = self.pairs.without_oldest(row_products(v, g))
        s_products = self.pairs.without_oldest(row_products(u, s))
        hg = combine_minus(u, g_products, g)
        new_v = combine_minus(v, s_products, s)
        short = self._hy_minus_s(hg)
        scale = -reciprocal(inner(s, short) + inner(s, s))
        last_product = inner(new_v, g)
        self.g_products = _with(g_products, self.pairs.slot, last_product)
        self.pairs.store(short, scale, new_v, frozen)
        return torch.addcmul(hg, short, scale * last_product)

    def _hy_minus_s(self, hg: Tensor) -> Tensor:
        """H y - s, where H has lost the pair that is replaced, and with it a share of -s."""
        if not self.pairs.full:
            return hg
        assert self.g_products is not None
        oldest, slot = self.pairs.u[:, self.pairs.slot], self.pairs.slot
        return hg + oldest.to(hg.dtype) * self.g_products[:, slot, None]

    def keep_rows(self, rows: Tensor) -> None:
        """The pairs of these samples, and their latest step."""
        self.pairs.keep_rows(rows)
        self.step = None if self.step is None else self.step[rows]
        self.g_products = None if self.g_products is None else self.g_products[rows]

    def inverse(self) -> LowRankInverse:
        """The pairs that are in memory."""
        return self.pairs.inverse()


def _with(products: Tensor, slot: int, value: Tensor) -> Tensor:
    """products (B, kept) with `value` (B, 1) at `slot`, appended where it is new."""
    if slot == products.shape[1]:
        return torch.cat((products, value), dim=1)
    products[:, slot : slot + 1] = value
    return products


@dataclass(frozen=True, kw_only=True)
class Broyden(Solver):
    """z <- z - H g(z), g = f - id, with rank-one updates of H towards (J_f - I)^-1 from H = -I.

    memory: pairs kept (two states each). storage_dtype: of the pairs; bfloat16 halves memory and
    traffic. initial_inverse: the H to start from instead, for instance `Solution.inverse` of an
    earlier solve of the same batch. Superlinear near the solution; copes with spectral radii above
    1. Source: Broyden 1965, the first ("good") method; Bai et al. 2019 (arXiv 1909.01377).
    """

    name: ClassVar[str] = "broyden"

    memory: int = 8
    storage_dtype: Storage | None = None
    initial_inverse: LowRankInverse | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise ValueError(f"memory must be at least 1, got {self.memory}")

    def start(self, z0: Tensor, function: FlatFunction) -> BroydenIteration:
        """Room for the pairs, never more than the budget can fill."""
        storage = getattr(torch, self.storage_dtype) if self.storage_dtype else z0.dtype
        initial = self.initial_inverse
        needed = self.max_steps + (initial.u.shape[1] if initial else 0)
        return BroydenIteration(PairMemory(z0, min(self.memory, needed), storage, initial))
