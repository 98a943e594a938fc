"""Newton's method with GMRES on products with the Jacobian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.equilibrium.solvers.flat_function import FlatFunction
from equipoise.equilibrium.solvers.inverse import combine, row_products
from equipoise.equilibrium.solvers.solver import Iteration, Solver


class JacobianProduct:
    """v -> (J_f - I) v at one z by a forward difference, one evaluation of f each.

    Differences work under autocast, with fused kernels and for functions that are themselves
    products with a Jacobian, where neither forward nor double backward mode does.
    """

    def __init__(self, function: FlatFunction, z: Tensor, fz: Tensor) -> None:
        self.function = function
        self.z = z
        self.fz = fz
        size = torch.linalg.vector_norm(z, dim=1, keepdim=True)
        self.increment = torch.finfo(z.dtype).eps ** 0.5 * (1.0 + size)

    def __call__(self, v: Tensor) -> Tensor:
        """v (B, D) of unit norm -> (B, D)."""
        shifted = self.function(self.z + self.increment * v)
        return (shifted - self.fz).div_(self.increment).sub_(v)


class ArnoldiBasis:
    """An orthonormal basis of the Krylov space of a product and a start vector, per sample."""

    def __init__(self, start: Tensor, size: int) -> None:
        """Room for `size` products, from start (B, D)."""
        batch, width = start.shape
        self.norm = torch.linalg.vector_norm(start, dim=1, keepdim=True)
        self.vectors = start.new_zeros(batch, size + 1, width)
        self.vectors[:, 0] = _unit(start, self.norm)
        self.hessenberg = start.new_zeros(batch, size + 1, size, dtype=torch.float64)
        self.count = 0

    def latest(self) -> Tensor:
        """The vector to multiply next (B, D)."""
        return self.vectors[:, self.count]

    def append(self, image: Tensor) -> None:
        """Take in the product of the latest vector, (B, D); orthogonalised twice for stability."""
        known = self.vectors[:, : self.count + 1]
        for _ in range(2):
            shares = row_products(known, image)
            image = image - combine(known, shares)
            self.hessenberg[:, : self.count + 1, self.count] += shares
        norm = torch.linalg.vector_norm(image, dim=1, keepdim=True)
        self.hessenberg[:, self.count + 1, self.count] = norm.squeeze(1).to(torch.float64)
        self.count += 1
        self.vectors[:, self.count] = _unit(image, norm)

    def least_squares(self) -> Tensor:
        """The s in the space that minimises |start + A s|, (B, D); zero where it is not finite.

        By the normal equations in float64, with a ridge for spaces that closed early.
        """
        h = self.hessenberg[:, : self.count + 1, : self.count]
        normal = h.transpose(1, 2) @ h
        ridge = 1e-13 * normal.diagonal(dim1=1, dim2=2).sum(dim=1, keepdim=True)
        normal.diagonal(dim1=1, dim2=2).add_(ridge + torch.finfo(normal.dtype).tiny)
        right = -h[:, 0] * self.norm.to(h.dtype)
        weights, _ = torch.linalg.solve_ex(normal, right)
        weights = torch.where(torch.isfinite(weights), weights, 0.0).to(self.vectors.dtype)
        return combine(self.vectors[:, : self.count], weights)


def _unit(x: Tensor, norm: Tensor) -> Tensor:
    """x / norm, zero where x vanishes."""
    return x / norm.clamp(min=torch.finfo(x.dtype).tiny)


class NewtonKrylovIteration(Iteration):
    """Newton steps, each from as many products as `krylov_steps` and the budget allow."""

    def __init__(self, function: FlatFunction, krylov_steps: int, max_steps: int) -> None:
        self.function = function
        self.krylov_steps = krylov_steps
        self.max_steps = max_steps

    def advance(self, z: Tensor, fz: Tensor, g: Tensor, frozen: Tensor | None) -> Tensor:
        """z + s with (J_f - I) s = -g in the least squares of the Krylov space; f(z) at the end.

        One evaluation of the budget is kept for the new iterate.
        """
        products = min(self.krylov_steps, self.max_steps - self.function.evaluations - 1)
        if products < 1:
            return fz
        product = JacobianProduct(self.function, z, fz)
        basis = ArnoldiBasis(g, products)
        for _ in range(products):
            basis.append(product(basis.latest()))
        return z + basis.least_squares()


@dataclass(frozen=True, kw_only=True)
class NewtonKrylov(Solver):
    """z <- z + s, where GMRES gives (J_f - I) s = -g(z), g = f - id, in `krylov_steps` products.

    Every product is an evaluation of f (a forward difference) and counts in max_steps, so a step
    costs 1 + krylov_steps of them. Quadratic near the solution up to the accuracy of the inner
    solve; for references and for stiff functions. Memory: `krylov_steps` + 1 states.
    Source: Knoll and Keyes 2004, section 2; Saad and Schultz 1986 (GMRES).
    """

    name: ClassVar[str] = "newton_krylov"

    krylov_steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.krylov_steps < 1:
            raise ValueError(f"krylov_steps must be at least 1, got {self.krylov_steps}")

    def start(self, z0: Tensor, function: FlatFunction) -> NewtonKrylovIteration:
        """Nothing to remember between steps."""
        return NewtonKrylovIteration(function, self.krylov_steps, self.max_steps)
