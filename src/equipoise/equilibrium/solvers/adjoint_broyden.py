"""The adjoint Broyden method, with optional updates along the gradient of the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.equilibrium.flat_function import FlatFunction, transformed
from equipoise.equilibrium.iteration import Iteration
from equipoise.equilibrium.low_rank import (
    LowRankInverse,
    PairMemory,
    combine_minus,
    inner,
    reciprocal,
    row_products,
)
from equipoise.equilibrium.solvers.broyden import Broyden, Storage
from equipoise.equilibrium.solvers.solver import Solver
from equipoise.equilibrium.state import State, detached

Direction = Callable[[State], State]
"""State -> gradient of the loss there, per sample."""


class AdjointBroydenIteration(Iteration):
    """H = -I + sum_i u_i v_i^T, an estimate of (J_f - I)^-1 that is exact along given rows.

    After the update with sigma, sigma^T (J_f - I) H = sigma^T. Each update takes one product with
    the transposed Jacobian at the present iterate.
    """

    def __init__(
        self,
        pairs: PairMemory,
        function: FlatFunction,
        direction: Direction | None,
        opa_every: int | None,
    ) -> None:
        self.pairs = pairs
        self.function = function
        self.direction = direction
        self.opa_every = opa_every
        self.steps = 0
        function.origin = detached

    def advance(self, z: Tensor, fz: Tensor, g: Tensor, frozen: Tensor | None) -> Tensor:
        """z - H g, after updates of H along g and, every `opa_every` steps, for the loss."""
        self.steps += 1
        if self.opa_every and self.steps % self.opa_every == 0:
            self._update(self._loss_direction(z), frozen)
        self._update(g, frozen)
        return z - self._product(self.pairs.u, self.pairs.v, g)

    def _update(self, sigma: Tensor, frozen: Tensor | None) -> None:
        """H <- H + a (sigma - b)^T / (b^T sigma), a = H sigma, b = H^T (J_f - I)^T sigma.

        The pair that the new one replaces leaves H before a and b are computed.
        """
        a = self._product(self.pairs.u, self.pairs.v, sigma, without_oldest=True)
        image = self.function.transposed_product(sigma) - sigma
        b = self._product(self.pairs.v, self.pairs.u, image, without_oldest=True)
        scale = reciprocal(inner(b, sigma))
        self.pairs.store(a, scale, sigma - b, frozen)

    def _loss_direction(self, z: Tensor) -> Tensor:
        """e = H^T grad L, for which e^T (J_f - I) comes near to grad L^T.

        The published code takes H grad L, which misses the direction that the gradient needs.
        """
        assert self.direction is not None
        layout = self.function.layout
        with torch.enable_grad():
            gradient = layout.flatten(self.direction(layout.restore(z.detach()))).detach()
        return self._product(self.pairs.v, self.pairs.u, gradient)

    def _product(
        self, left: Tensor, right: Tensor, x: Tensor, without_oldest: bool = False
    ) -> Tensor:
        """(-I + sum_i left_i right_i^T) x over the pairs in memory."""
        count = self.pairs.kept()[0].shape[1]
        weights = row_products(right[:, :count], x)
        if without_oldest:
            weights = self.pairs.without_oldest(weights)
        return combine_minus(left[:, :count], weights, x)

    def keep_rows(self, rows: Tensor) -> None:
        """The pairs of these samples."""
        self.pairs.keep_rows(rows)

    def inverse(self) -> LowRankInverse:
        """The pairs that are in memory."""
        return self.pairs.inverse()


@dataclass(frozen=True, kw_only=True)
class AdjointBroyden(Solver):
    """z <- z - H g(z), g = f - id, where a product with J_f^T makes H exact along g.

    memory: pairs kept (two states each). opa_every: steps between updates along the direction that
    matters for the gradient of the loss (outer-problem awareness, for `Shine`); it needs
    `direction`, which maps a state to the gradient of the loss there. initial_inverse: as for
    `Broyden`. max_steps counts evaluations, each of which keeps its graph and serves one product
    (`Solution.products`), two at an outer update. In inference mode, where autograd is off, the
    updates are those of `Broyden`. Source: Schlenkrich et al. 2010 (type C); Ramzi et al. 2022
    (arXiv 2106.00553), section 2.3.
    """

    name: ClassVar[str] = "adjoint_broyden"

    memory: int = 8
    storage_dtype: Storage | None = None
    opa_every: int | None = None
    direction: Direction | None = field(default=None, compare=False, repr=False)
    initial_inverse: LowRankInverse | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise ValueError(f"memory must be at least 1, got {self.memory}")
        if self.opa_every is not None and self.opa_every < 1:
            raise ValueError(f"opa_every must be at least 1, or None, got {self.opa_every}")
        if self.compact_at is not None and self.direction is not None:
            raise ValueError("compact_at needs direction=None: a direction always gets all rows")

    def start(self, z0: Tensor, function: FlatFunction) -> Iteration:
        """Allocate the pairs.

        Raises ValueError if `opa_every` has no direction, and inside torch.func transforms, which
        hide the graph that the products need.
        """
        if torch.is_inference_mode_enabled():
            return self.as_broyden().start(z0, function)
        if transformed():
            raise ValueError(
                "adjoint_broyden does not work inside torch.func transforms; use broyden"
            )
        if self.opa_every and self.direction is None:
            raise ValueError(
                "opa_every needs direction, a function from the state to the gradient of the loss; "
                "set it, or leave opa_every out"
            )
        storage = getattr(torch, self.storage_dtype) if self.storage_dtype else z0.dtype
        pairs = PairMemory(z0, self._pairs_to_fill(), storage, self.initial_inverse)
        return AdjointBroydenIteration(pairs, function, self.direction, self.opa_every)

    def as_broyden(self) -> Broyden:
        """The solver with the same settings that needs no products with J_f^T."""
        return Broyden(**{field.name: getattr(self, field.name) for field in fields(Broyden)})

    def _pairs_to_fill(self) -> int:
        """Pairs that the budget can fill, up to `memory`."""
        initial = self.initial_inverse
        outer = self.max_steps // self.opa_every if self.opa_every else 0
        return min(self.memory, self.max_steps + outer + (initial.u.shape[1] if initial else 0))
