"""Newton's method with GMRES on products with the Jacobian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from equipoise.equilibrium.flat_function import FlatFunction
from equipoise.equilibrium.iteration import Iteration
from equipoise.equilibrium.krylov import ArnoldiBasis
from equipoise.equilibrium.solvers.solver import Solver


class NewtonKrylovIteration(Iteration):
    """Newton steps, each with as many products as `krylov_steps` and the budget allow."""

    def __init__(self, function: FlatFunction, krylov_steps: int, max_steps: int) -> None:
        self.function = function
        self.krylov_steps = krylov_steps
        self.max_steps = max_steps

    def advance(self, z: Tensor, fz: Tensor, g: Tensor, frozen: Tensor | None) -> Tensor:
        """z + s, where s solves (J_f - I) s = -g by least squares in the Krylov space; f(z) at the
        end.

        One evaluation of the budget is kept for the new iterate.
        """
        products = min(self.krylov_steps, self.max_steps - self.function.evaluations - 1)
        if products < 1:
            return fz
        basis = ArnoldiBasis(g, products)
        for _ in range(products):
            v = basis.latest()
            basis.append(self.function.product(z, fz, v).sub_(v))
        return z + basis.least_squares()

    def keep_rows(self, rows: Tensor) -> None:
        """Nothing is remembered between steps."""


@dataclass(frozen=True, kw_only=True)
class NewtonKrylov(Solver):
    """z <- z + s, where GMRES gives (J_f - I) s = -g(z), g = f - id, in `krylov_steps` products.

    Every product is an evaluation of f (a forward difference) and counts towards max_steps, so a
    step costs 1 + krylov_steps of them. Quadratic near the solution, up to the accuracy of the
    inner solve; for reference solutions and stiff functions. Memory: `krylov_steps` + 1 states.
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
