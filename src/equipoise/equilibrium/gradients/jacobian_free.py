"""Jacobian-free backpropagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from equipoise.equilibrium.backward_graph import Graph, Rule
from equipoise.equilibrium.gradients.estimator import report_products
from equipoise.equilibrium.solution import Solution, SolveReport
from equipoise.equilibrium.state import Function, State, constant, finite_or_kept


@dataclass(frozen=True)
class JacobianFree:
    """(I - J)^-T is taken as I: one attached evaluation of f, backpropagated once.

    Cost: one f and its backward pass to the parameters; memory of one f. Second derivatives treat
    z* as a constant, as the first derivative does. Source: Fung et al. 2022 (arXiv 2103.12803), eq.
    9.
    """

    name: ClassVar[str] = "jfb"
    own_iteration: ClassVar[bool] = False
    origin = staticmethod(constant)

    def attach(self, f: Function, solution: Solution, z0: State, *inputs: Tensor) -> State:
        """f(z*) with z* constant; z* where that is not finite."""
        state = finite_or_kept(solution.evaluate(f, self.origin, *inputs).fz, solution.z)
        report_products(state, solution.report, 1)
        return state

    def rule(self, solution: Solution) -> Rule:
        """w = c, the cotangent unchanged."""
        return _unchanged


def _unchanged(cotangent: Tensor, graph: Graph) -> tuple[Tensor, SolveReport]:
    return cotangent, SolveReport(nfe=0)
