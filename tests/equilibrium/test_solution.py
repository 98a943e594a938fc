"""Solutions and reports."""

from __future__ import annotations

import torch

from equipoise.equilibrium import Solution, SolveReport, Status


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
