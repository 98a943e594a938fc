"""Solves that did not converge: their statuses, their description, and a second try."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.equilibrium.solution import Solution, SolveReport, Status
from equipoise.equilibrium.solvers import FixedPoint, Solver
from equipoise.equilibrium.state import Function, Layout, State


def describe_failure(report: SolveReport, solver: Solver) -> str:
    """How many samples failed, and in which way."""
    counts = report.counts()
    failed = sum(count for status, count in counts.items() if status != "converged")
    kinds = ", ".join(f"{n} {status}" for status, n in counts.items() if status != "converged")
    return (
        f"{failed} of {sum(counts.values())} samples did not reach the tolerance {solver.tol:g} in "
        f"{report.nfe} evaluations ({kinds})"
    )


def with_fallback(
    solution: Solution, solver: Solver, f: Function, z0: State, inputs: tuple[Tensor, ...]
) -> Solution:
    """Where `solution` diverged or is non-finite, the damped iteration's result if it is better."""
    damped = FixedPoint(
        damping=0.5, max_steps=solver.max_steps, tol=solver.tol, stop=solver.stop,
        check_every=solver.check_every, dtype=solver.dtype,
    ).solve(f, z0, *inputs)  # fmt: skip
    broken = (solution.status == Status.DIVERGED) | (solution.status == Status.NON_FINITE)
    better = broken & (damped.residual < solution.residual)
    layout = Layout.of(solution.z)
    z = torch.where(better.unsqueeze(1), layout.flatten(damped.z), layout.flatten(solution.z))
    merged = Solution(
        z=layout.restore(z),
        residual=torch.where(better, damped.residual, solution.residual),
        steps=torch.where(better, damped.steps, solution.steps),
        status=torch.where(better, damped.status, solution.status),
        nfe=solution.nfe + damped.nfe,
        trace=solution.trace,
        inverse=solution.inverse,
        states=solution.states,
        products=solution.products,
    )
    merged.report.fallback = better
    return merged
