"""The exact gradient by the implicit function theorem."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.equilibrium.backward_graph import Graph, Rule
from equipoise.equilibrium.flat_function import AffineMap
from equipoise.equilibrium.gradients.estimator import CotangentRule
from equipoise.equilibrium.processes import greatest
from equipoise.equilibrium.solution import Solution, SolveReport
from equipoise.equilibrium.solvers import Anderson, Solver

LARGEST = 1024.0
"""Norm of the largest cotangent in the solve: float16 holds it, and thousandths of it as well."""


@dataclass
class AdjointMemory:
    """The adjoint solution w (B, D) of the latest backward pass; None before the first one."""

    latest: Tensor | None = None


@dataclass(frozen=True)
class Exact(CotangentRule):
    """w = J^T w + c for the cotangent c, by a solver, then one product of w with df/d(theta, x).

    c is scaled by one number before the solve, so the gradient does not depend on the scale of the
    loss, and is correct even if f couples the samples of a batch. The residual of each sample is
    measured in units of its own c. One graph of f, at the solution, serves every product of the
    solve and the final one. Cost: one f, often the forward solve's last one, and as many products
    with J^T as `solver` takes. adjoint: None, or a memory in which a backward pass stores its w as
    the start of the next one: for a layer that solves nearly the same problem each time. Source:
    Bai et al. 2019 (arXiv 1909.01377), theorem 1.
    """

    name: ClassVar[str] = "exact"

    solver: Solver = field(default_factory=lambda: Anderson(max_steps=20))
    adjoint: AdjointMemory | None = field(default=None, compare=False, repr=False)

    def rule(self, solution: Solution) -> Rule:
        """The solve of the adjoint system."""
        return partial(self._solve, solution.together)

    def _solve(self, together: bool, cotangent: Tensor, graph: Graph) -> tuple[Tensor, SolveReport]:
        known = None if self.adjoint is None else self.adjoint.latest
        start = cotangent if known is None or known.shape != cotangent.shape else known
        w, report = solve_adjoint(self.solver, cotangent, graph, start, together)
        if self.adjoint is not None:
            self.adjoint.latest = w.detach()
        return w, report


def solve_adjoint(
    solver: Solver, cotangent: Tensor, graph: Graph, start: Tensor, together: bool = False
) -> tuple[Tensor, SolveReport]:
    """w = J^T w + c from `start`, all (B, D), in the same accuracy relative to each row of c.

    All rows are scaled by the same number: scaled individually, they would belong to another system
    if J couples them. together: J couples the rows of all processes.
    """
    tiny = torch.finfo(cotangent.dtype).tiny
    sizes = torch.nan_to_num(norms(cotangent), posinf=0.0)
    largest = greatest(sizes.amax()) if together else sizes.amax()
    scale = (largest / LARGEST).clamp(min=tiny)
    scaled = cotangent / scale

    solution = solver.solve(
        AffineMap(graph.product, scaled),
        scaled if start is cotangent else start / scale,
        # A row of zeros is still given a unit, by which no residual overflows.
        coupled_units=(sizes / scale).clamp(min=tiny**0.5).squeeze(1),
    )
    assert isinstance(solution.z, Tensor)
    return solution.z * scale, solution.report


def norms(x: Tensor) -> Tensor:
    """2-norm per sample: (B, D) -> (B, 1)."""
    return torch.linalg.vector_norm(x, dim=1, keepdim=True)
