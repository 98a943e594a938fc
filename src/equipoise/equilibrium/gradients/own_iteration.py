"""What the estimators that bring their own iteration share: its report, and its budget."""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor

from equipoise.equilibrium.gradients.estimator import GradientEstimator
from equipoise.equilibrium.solution import Solution, SolveReport, Status
from equipoise.equilibrium.solvers.stopping import StoppingRule


class OwnIteration(GradientEstimator, Protocol):
    """An estimator that starts at z0 and brings its own iteration."""

    def with_budget(self, evaluations: int) -> GradientEstimator:
        """The same with as many steps as that many evaluations of f pay for, one at least."""
        ...


def with_budget(estimator: GradientEstimator, evaluations: int) -> GradientEstimator:
    """The estimator, whose own iteration, if it brings one, spends at most so many evaluations."""
    if not estimator.own_iteration:
        return estimator
    return cast(OwnIteration, estimator).with_budget(evaluations)


def rule_of(solution: Solution) -> StoppingRule:
    """How the layer's solver judges an iterate; the relative residual where none is given."""
    return solution.rule or StoppingRule("relative", 0.0, 0.0)


@torch.no_grad()
def report_iteration(
    report: SolveReport, rule: StoppingRule, z: Tensor, fz: Tensor, evaluations: int
) -> None:
    """Note where the iteration has ended: z and f(z) (B, D) are those of its last evaluation."""
    size = torch.linalg.vector_norm(fz, dim=1)
    residual = rule(torch.linalg.vector_norm(fz - z, dim=1), size)
    status = torch.full_like(residual, Status.BUDGET, dtype=torch.int8)
    status.masked_fill_(rule.reached(residual, size), int(Status.CONVERGED))
    report.status = status.masked_fill_(~torch.isfinite(residual), int(Status.NON_FINITE))
    report.residual = residual
    report.steps = torch.full_like(residual, evaluations, dtype=torch.long)
    report.nfe = evaluations
