"""The graph of f at the solution, and what a rule for the cotangent may ask of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from equipoise.equilibrium.solution import SolveReport
from equipoise.equilibrium.state import Layout, parts


class Graph(Protocol):
    """What a rule needs: products with J^T, J = df/dz at the solution."""

    def product(self, w: Tensor) -> Tensor:
        """J^T w: (B, D) -> (B, D)."""
        ...


@dataclass(frozen=True)
class AttachedGraph:
    """The graph that leads from z to f(z), kept for products with J^T, J = df/dz."""

    z: tuple[Tensor, ...]
    fz: tuple[Tensor, ...]
    layout: Layout

    def product(self, w: Tensor) -> Tensor:
        """J^T w: (B, D) -> (B, D)."""
        products = self.gradients(w, self.z)
        pairs = zip(self.z, products, strict=True)
        full = tuple(torch.zeros_like(z) if got is None else got for z, got in pairs)
        return self.layout.flatten(full)

    def gradients(self, w: Tensor, towards: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """w^T df/dt for w (B, D) and every tensor t of the graph; None where t does not matter.

        Where w has a graph, so has the product: a backward solver may ask for its derivatives.
        """
        reached = [(a, b) for a, b in zip(self._parts(w), self.fz, strict=True) if b.requires_grad]
        cotangents = [a for a, _ in reached]
        outputs = [b for _, b in reached]
        return torch.autograd.grad(
            outputs,
            towards,
            cotangents,
            retain_graph=True,
            create_graph=w.requires_grad,
            allow_unused=True,
        )

    def _parts(self, w: Tensor) -> tuple[Tensor, ...]:
        """The rows of w as parts of f's own shapes and dtypes."""
        pairs = zip(parts(self.layout.restore(w)), self.fz, strict=True)
        return tuple(a.to(b.dtype) for a, b in pairs)


Rule = Callable[[Tensor, Graph], tuple[Tensor, SolveReport]]
"""(cotangent c (B, D), graph of f at the solution) -> (w (B, D), what it took): w stands for
(I - J)^-T c, and the gradient is w^T df/d(theta, inputs)."""
