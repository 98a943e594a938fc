"""Solutions and reports."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import (
    AdjointBroyden,
    FixedPoint,
    Solution,
    Solver,
    SolveReport,
    Status,
)
from equipoise.equilibrium.state import detached, parts


def test_the_report_tells_what_the_solution_tells() -> None:
    solution = Solution(
        z=torch.zeros(3, 2),
        residual=torch.tensor([0.1, 0.2, 0.3]),
        steps=torch.tensor([1, 2, 3]),
        status=torch.tensor([0, 1, 4], dtype=torch.int8),
        nfe=5,
        products=2,
    )
    report = solution.report
    assert report.nfe == 5
    assert report.products == 2
    assert torch.equal(report.residual, solution.residual)  # type: ignore[arg-type]
    assert solution.converged.tolist() == [True, False, False]
    assert report.converged is not None
    assert report.converged.tolist() == [True, False, False]
    assert report.counts() == {"converged": 1, "budget": 1, "non_finite": 1}


def test_a_report_of_products_alone_counts_no_samples() -> None:
    report = SolveReport(nfe=5)
    assert report.converged is None
    assert report.counts() == {}


def test_nothing_solved_is_out_of_budget() -> None:
    solution = Solution.unsolved((torch.ones(2, 3), torch.ones(2, 1)))
    assert solution.nfe == 0
    assert (solution.status == Status.BUDGET).all()
    assert torch.isinf(solution.residual).all()


@pytest.mark.parametrize("kind", [FixedPoint, AdjointBroyden])
def test_a_solve_that_is_not_asked_for_a_graph_keeps_none(kind: type[Solver]) -> None:
    """Adjoint Broyden takes products with one at every step, and gives them all free."""
    solution = kind(tol=1e-3).solve(lambda z: 0.5 * z + 1.0, torch.zeros(2, 3))
    assert solution.converged.all()
    assert solution.evaluation is None


def test_the_last_evaluation_serves_once_and_at_its_own_state_alone() -> None:
    calls: list[None] = []

    def f(z: Tensor) -> Tensor:
        calls.append(None)
        return 2 * z

    solution = FixedPoint(max_steps=1, tol=0).solve(f, torch.ones(2, 3), origin=detached)
    moved = replace(solution, z=solution.z + 1)
    assert torch.equal(parts(moved.evaluate(f, detached).fz)[0], torch.full((2, 3), 4.0))
    assert len(calls) == 2
    kept = solution.evaluation
    assert solution.evaluate(f, detached) is kept
    assert len(calls) == 2
    solution.evaluate(f, detached)
    assert len(calls) == 3
