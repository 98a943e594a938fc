"""Conjugate gradients, for affine maps whose I - J is symmetric and positive definite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.equilibrium.flat_function import AffineMap, FlatFunction, Origin
from equipoise.equilibrium.iteration import Iteration
from equipoise.equilibrium.low_rank import inner
from equipoise.equilibrium.search import Search
from equipoise.equilibrium.solution import Solution, Stop, resolution
from equipoise.equilibrium.solvers.solver import Solver
from equipoise.equilibrium.state import Function, Layout, State

SINGULAR = 1e-13
"""Of the largest eigenvalue, which is about 1: a smaller curvature is a rounding error."""


class ConjugateDirections(Iteration):
    """x, r = c - A x and the direction p of the method for A x = c, A = I - J.

    The first step goes along `start` (B, D), as far as is best, whatever its length: a start close
    to a multiple of the solution saves steps according to its correct digits.
    """

    def __init__(self, system: AffineMap, start: Tensor) -> None:
        self.system = system
        self.x = torch.zeros_like(start)
        self.r = system.constant
        zero = ~start.any(dim=1, keepdim=True)
        self.p = torch.where(zero, system.constant, start)
        foreign = (self.p != system.constant).any(dim=1, keepdim=True)
        self.unrelated: Tensor | None = foreign  # (B, 1) bool: where p is no residual

    def advance(self, z: Tensor, fz: Tensor, g: Tensor, frozen: Tensor | None) -> Tensor:
        """The next x; NaN where the curvature is not positive: A does not suit this method."""
        square = inner(self.r, self.r)
        tiny = torch.finfo(square.dtype).tiny
        a_p = self.p - self.system.linear(self.p)
        curvature = inner(self.p, a_p)
        usable = curvature > SINGULAR * inner(self.p, self.p)
        # A row that is solved to the last digit stays where it is while others go on.
        unusable = torch.where(square > tiny, torch.nan, 0.0)
        alpha = torch.where(usable, inner(self.r, self.p) / curvature, unusable)
        self.x = torch.addcmul(self.x, alpha, self.p)
        self.r = torch.addcmul(self.r, alpha, a_p, value=-1.0)
        beta = inner(self.r, self.r) / square.clamp(min=tiny)
        if self.unrelated is not None:
            beta, self.unrelated = beta.masked_fill(self.unrelated, 0.0), None
        self.p = torch.addcmul(self.r, beta, self.p)
        return self.x

    def keep_rows(self, rows: Tensor) -> None:
        """Nothing is dropped: the rows of an adjoint system may be coupled."""


@dataclass(frozen=True, kw_only=True)
class ConjugateGradient(Solver):
    """z = J z + c by conjugate gradients on (I - J) z = c, I - J symmetric, positive definite.

    For the adjoint system of a `Descent`, whose J is I minus a Hessian. Residuals follow by the
    method's recurrence, so a step costs one product; memory of five states. z0 is the first
    direction. stop: measured by |c - (I - J) z|, by `Exact` in units of |c|; patience is long,
    because residuals may grow for many steps before they fall. A sample whose I - J is singular or
    indefinite ends as non-finite. Each sample is a separate system: if f couples them, the
    residuals are not the true ones. Source: Hestenes and Stiefel 1952; Pedregosa 2016 (arXiv
    1602.02355) for its use here.
    """

    name: ClassVar[str] = "conjugate_gradient"

    max_steps: int = 1000
    tol: float = 1e-6
    stop: Stop = "absolute"
    patience: int = 1000

    def start(self, z0: Tensor, function: FlatFunction) -> ConjugateDirections:
        """The direction z0; costs one evaluation if f does not know its constant."""
        return ConjugateDirections(function.affine(z0), z0)

    def _solve(
        self,
        f: Function,
        z0: State,
        inputs: tuple[Tensor, ...],
        coupled_units: Tensor | None,
        origin: Origin | None,
    ) -> Solution:
        """An evaluation of f goes into the direction of a step, so that none is the solution's."""
        layout = Layout.of(z0, getattr(torch, self.dtype) if self.dtype else None)
        function = FlatFunction(f, layout, inputs, resolution(z0, layout))
        z = layout.flatten(z0)
        search = self._search(z, function.resolution, coupled_units)
        directions = self.start(z, function)
        x = directions.x
        while True:
            r = directions.r
            search.observe(x, x + r, r, function.evaluations)
            if function.evaluations >= self.max_steps or (self.tol > 0 and search.check()):
                break
            x = directions.advance(x, x, r, search.frozen)
        return self._found(search, layout, function)

    def _found(self, search: Search, layout: Layout, function: FlatFunction) -> Solution:
        search.finish(function.evaluations)
        outcome = search.outcome()
        trace = None if search.trace is None else torch.stack(search.trace)
        if trace is not None:  # the start's residual may have come without an evaluation
            trace = trace[len(trace) - function.evaluations :]
        return Solution(
            z=layout.restore(outcome.z),
            residual=outcome.residual,
            steps=outcome.steps,
            status=outcome.status,
            nfe=function.evaluations,
            trace=trace,
        )
