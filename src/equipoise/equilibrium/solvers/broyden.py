"""Broyden's good method with limited memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from equipoise.equilibrium.solvers.inverse import LowRankInverse, combine, row_products
from equipoise.equilibrium.solvers.solver import Iteration, Solver


def product(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per sample: (B, D), (B, D) -> (B, 1)."""
    return torch.linalg.vecdot(a, b).unsqueeze(1)


class BroydenIteration(Iteration):
    """H = -I + sum_i u_i v_i^T, an estimate of (J_f - I)^-1, in `memory` pairs, the oldest dropped.

    The pair that the new one replaces leaves H *before* the update is computed, so that the secant
    condition H y = s holds for the H that is stored.
    """

    def __init__(self, z0: Tensor, memory: int, storage: torch.dtype) -> None:
        batch, width = z0.shape
        self.memory = memory
        self.stored = 0
        self.u = torch.empty(batch, memory, width, dtype=storage, device=z0.device)
        self.v = torch.empty(batch, memory, width, dtype=storage, device=z0.device)
        self.g_products: Tensor | None = None  # <v_i, g> of the latest g
        self.step: Tensor | None = None  # s = -H g, the latest step

    def advance(self, z: Tensor, fz: Tensor, g: Tensor) -> Tensor:
        """z - H g, after H has taken in the pair of the step that led here."""
        descent = g.neg() if self.step is None else self._updated_product(g, self.step)
        self.step = descent.neg()
        return z + self.step

    def _updated_product(self, g: Tensor, s: Tensor) -> Tensor:
        """Update H by s and y = g - g_old, and return the new H g.

        u = (s - H y) / (s^T H y) and v = H^T s; since H g_old = -s, H y = H g + s, so one product
        serves the update and the step.
        """
        slot = self.stored % self.memory
        kept = min(self.stored, self.memory)
        u, v = self.u[:, :kept], self.v[:, :kept]
        hy_minus_hg = s
        if self.stored < self.memory:
            g_products, s_products = row_products(v, g), row_products(u, s)
        else:  # a full memory: leave out the pair in `slot`, whose share of H g_old is known
            assert self.g_products is not None
            hy_minus_hg = s.addcmul(self.u[:, slot], self.g_products[:, slot, None])
            g_products, s_products = row_products(v, g), row_products(u, s)
            g_products[:, slot] = 0.0
            s_products[:, slot] = 0.0
        hg = combine(u, g_products, -g)
        new_v = combine(v, s_products, -s)
        hy = hg + hy_minus_hg
        curvature = product(s, hy)
        # A vanishing curvature s^T H y carries no secant information: leave H as it is.
        tiny = torch.finfo(curvature.dtype).tiny
        new_u = torch.where(curvature.abs() > tiny, (s - hy) / curvature, 0.0)
        self.u[:, slot] = new_u
        self.v[:, slot] = new_v
        self.stored += 1
        last_product = product(new_v, g)
        self.g_products = self._with(g_products, slot, last_product)
        return hg.addcmul_(new_u, last_product)

    @staticmethod
    def _with(products: Tensor, slot: int, value: Tensor) -> Tensor:
        """products (B, kept) with `value` (B, 1) at `slot`, appended where it is new."""
        if slot == products.shape[1]:
            return torch.cat((products, value), dim=1)
        products[:, slot : slot + 1] = value
        return products

    def inverse(self) -> LowRankInverse:
        """The pairs that are in memory."""
        kept = min(self.stored, self.memory)
        return LowRankInverse(self.u[:, :kept], self.v[:, :kept])


@dataclass(frozen=True, kw_only=True)
class Broyden(Solver):
    """z <- z - H g(z), g = f - id, with rank-one updates of H towards (J_f - I)^-1 from H = -I.

    memory: pairs kept (two states each). storage_dtype: of the pairs; bfloat16 halves memory and
    traffic. Superlinear near the solution; copes with spectral radii above 1.
    Source: Broyden 1965, the first ("good") method; Bai et al. 2019 (arXiv 1909.01377), section 3.
    """

    name: ClassVar[str] = "broyden"

    memory: int = 8
    storage_dtype: Literal["float32", "float64", "bfloat16"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise ValueError(f"memory must be at least 1, got {self.memory}")

    def start(self, z0: Tensor) -> BroydenIteration:
        """Room for the pairs, never more than the budget can fill."""
        storage = getattr(torch, self.storage_dtype) if self.storage_dtype else z0.dtype
        return BroydenIteration(z0, min(self.memory, self.max_steps), storage)
