"""The exact gradient by the implicit function theorem."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.equilibrium.gradients.attached_graph import Graph, Rule
from equipoise.equilibrium.gradients.cotangent import attach_rule
from equipoise.equilibrium.solution import Solution, SolveReport
from equipoise.equilibrium.solvers import Anderson, Solver
from equipoise.equilibrium.state import Function, State, detached


@dataclass(frozen=True)
class Exact:
    """w = J^T w + c for the cotangent c, by a solver, then one product of w with df/d(theta, x).

    c is scaled to unit norm per sample before the solve, so the gradient does not depend on the
    scale of the loss. One graph of f, at the solution, serves every product of the solve and the
    last one. Cost: one f, often the solve's own last (`LastEvaluation`), and as many products with
    J^T as `solver` takes.
    Source: Bai et al. 2019 (arXiv 1909.01377), theorem 1.
    """

    name: ClassVar[str] = "exact"
    own_iteration: ClassVar[bool] = False
    origin = staticmethod(detached)

    solver: Solver = field(default_factory=lambda: Anderson(max_steps=20))

    def attach(self, f: Function, solution: Solution, z0: State, *inputs: Tensor) -> State:
        """f(z*) whose backward solves the adjoint system first."""
        if not torch.is_grad_enabled():
            return solution.z
        return attach_rule(f, solution, inputs, self.rule(solution))

    def rule(self, solution: Solution) -> Rule:
        """The solve of the adjoint system."""
        return self._solve

    def _solve(self, cotangent: Tensor, graph: Graph) -> tuple[Tensor, SolveReport]:
        return solve_adjoint(self.solver, cotangent, graph, cotangent)


def solve_adjoint(
    solver: Solver, cotangent: Tensor, graph: Graph, start: Tensor
) -> tuple[Tensor, SolveReport]:
    """w = J^T w + c from `start`, all (B, D); in units of |c| per sample, whatever its scale."""
    size = norms(cotangent).clamp(min=torch.finfo(cotangent.dtype).tiny)
    unit = cotangent / size

    def adjoint(w: Tensor) -> Tensor:
        return graph.product(w) + unit

    solution = solver.solve(adjoint, unit if start is cotangent else start / size)
    assert isinstance(solution.z, Tensor)
    return solution.z * size, solution.report


def norms(x: Tensor) -> Tensor:
    """2-norm per sample: (B, D) -> (B, 1)."""
    return torch.linalg.vector_norm(x, dim=1, keepdim=True)
