"""The gradient that shares the inverse estimate of the forward solve (SHINE)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.equilibrium.backward_graph import Graph, Rule
from equipoise.equilibrium.gradients.estimator import CotangentRule
from equipoise.equilibrium.gradients.exact import norms, solve_adjoint
from equipoise.equilibrium.solution import Solution, SolveReport
from equipoise.equilibrium.solvers import Broyden, LowRankInverse


@dataclass(frozen=True)
class ScaledGraph:
    """The graph of (1 - scale) z + scale f(z), which has the same solution; scale (B, 1)."""

    graph: Graph
    scale: Tensor

    def product(self, w: Tensor) -> Tensor:
        """J^T w: (B, D) -> (B, D)."""
        return w + self.scale * (self.graph.product(w) - w)


@dataclass(frozen=True)
class Shine(CotangentRule):
    """w = -H^T c, with H the forward solver's estimate of (J - I)^-1: no product with J^T at all.

    A sample with |w| > fallback_ratio |c| does not trust the estimate and takes w = c, the
    Jacobian-free gradient; an estimate that is definite by construction (`LBFGS`) is always
    trusted. refine_steps: Broyden steps on w = J^T w + c from there, which start with the
    transposed estimate (the pairs with u and v exchanged) and add to it. Cost: one f and
    `refine_steps` + 1 products, none without refinement. Needs a solver that keeps an inverse:
    broyden, adjoint_broyden or lbfgs; raises ValueError otherwise. Source: Ramzi et al. 2022 (arXiv
    2106.00553).
    """

    name: ClassVar[str] = "shine"

    fallback_ratio: float = 1.3
    refine_steps: int = 0

    def __post_init__(self) -> None:
        if self.fallback_ratio <= 0 or self.refine_steps < 0:
            raise ValueError("shine needs a positive fallback_ratio and refine_steps of at least 0")

    def rule(self, solution: Solution) -> Rule:
        """The product with the inverse of this solution, and the refinement."""
        if solution.inverse is None:
            raise ValueError(
                "shine needs a solver that estimates the inverse Jacobian: "
                "broyden or adjoint_broyden"
            )
        return partial(self._apply, solution.inverse)

    def _apply(
        self, inverse: LowRankInverse, cotangent: Tensor, graph: Graph
    ) -> tuple[Tensor, SolveReport]:
        shared = inverse.apply_transposed(cotangent).neg_()
        length = norms(shared)
        # Written so that a non-finite estimate falls back as well.
        trusted = length <= self.fallback_ratio * norms(cotangent)
        if inverse.definite:
            trusted = torch.isfinite(length)
        w = torch.where(trusted, shared, cotangent)
        report = SolveReport(nfe=0)
        if self.refine_steps:
            w, report = self._refine(inverse, trusted, cotangent, graph, w)
        report.fallback = ~trusted.squeeze(1)
        return w, report

    def _refine(
        self,
        inverse: LowRankInverse,
        trusted: Tensor,
        cotangent: Tensor,
        graph: Graph,
        start: Tensor,
    ) -> tuple[Tensor, SolveReport]:
        """The adjoint solve from `start`; where the estimate is not trusted, from H = -I.

        In the units of an estimate that begins at -scale I: scale (I - J^T) w = scale c.
        """
        (shared, scale), mask = inverse.transposed().in_units(), trusted.unsqueeze(2)
        if scale is not None:
            graph, cotangent = ScaledGraph(graph, scale), cotangent * scale
        initial = LowRankInverse(
            torch.where(mask, shared.u, 0.0), torch.where(mask, shared.v, 0.0), shared.oldest
        )
        solver = Broyden(
            max_steps=self.refine_steps + 1,
            memory=initial.u.shape[1] + self.refine_steps,
            tol=0.0,
            initial_inverse=initial,
        )
        return solve_adjoint(solver, cotangent, graph, start)
