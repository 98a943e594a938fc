"""The exact gradient by the implicit function theorem."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from equipoise.equilibrium.solution import Solution, SolveReport
from equipoise.equilibrium.solvers import Anderson, Solver
from equipoise.equilibrium.state import Function, Layout, State, detached, parts


@dataclass(frozen=True)
class Exact:
    """w = J^T w + c for the cotangent c, by any solver, then one product of w with df/d(theta, x).

    c is scaled to unit norm per sample before the solve, so the gradient does not depend on the
    scale of the loss. One graph of f, at the solution, serves every product of the solve and the
    last one. Cost: one f and as many products with J^T as `solver` takes.
    Source: Bai et al. 2019 (arXiv 1909.01377), theorem 1.
    """

    name: ClassVar[str] = "exact"
    own_iteration: ClassVar[bool] = False

    solver: Solver = field(default_factory=lambda: Anderson(max_steps=20))

    def attach(self, f: Function, solution: Solution, z0: State, *inputs: Tensor) -> State:
        """f(z*) whose backward solves the adjoint system first."""
        if not torch.is_grad_enabled():
            return solution.z
        z = detached(solution.z)
        fz = f(z, *inputs)
        outputs = _AdjointSolve.apply(self.solver, parts(z), solution.report, *parts(fz))
        return outputs if isinstance(fz, tuple) else outputs[0]


class _AdjointSolve(torch.autograd.Function):
    """Identity on f(z*), whose backward turns the cotangent c into (I - J)^-T c."""

    @staticmethod
    def forward(
        ctx: Any, solver: Solver, z: tuple[Tensor, ...], report: SolveReport, *fz: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.solver, ctx.z, ctx.report = solver, z, report
        ctx.save_for_backward(*fz)
        return tuple(part.view_as(part) for part in fz)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "second derivatives through the exact estimator are not available; "
                "use gradient=unrolled, or phantom, where a double backward is needed"
            )
        fz = ctx.saved_tensors
        layout = Layout.of(cotangents)
        adjoint = solve_adjoint(ctx.solver, ctx.z, fz, layout.flatten(cotangents), layout)
        ctx.report.backward = adjoint.report
        w = parts(adjoint.z)
        return (None, None, None, *(a.to(b.dtype) for a, b in zip(w, fz, strict=True)))


def vector_jacobian_product(
    z: tuple[Tensor, ...], fz: tuple[Tensor, ...], w: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """w^T df/dz on the graph that leads from z to fz; zero where a part does not matter."""
    w = tuple(a.to(b.dtype) for a, b in zip(w, fz, strict=True))
    products = torch.autograd.grad(fz, z, w, retain_graph=True, allow_unused=True)
    return tuple(
        torch.zeros_like(part) if got is None else got for part, got in zip(z, products, strict=True)
    )


def solve_adjoint(
    solver: Solver,
    z: tuple[Tensor, ...],
    fz: tuple[Tensor, ...],
    cotangent: Tensor,
    layout: Layout,
) -> Solution:
    """w = J^T w + c for c (B, D) flattened by `layout`; the solution's z is w as a tuple of parts."""
    size = torch.linalg.vector_norm(cotangent, dim=1, keepdim=True)
    size = size.clamp(min=torch.finfo(cotangent.dtype).tiny)
    unit = cotangent / size

    def adjoint(w: Tensor) -> Tensor:
        return layout.flatten(vector_jacobian_product(z, fz, parts(layout.restore(w)))) + unit

    solution = solver.solve(adjoint, unit)
    solution.z = layout.restore(solution.z * size)
    return solution
