"""The contraction of a solve, and the budget that follows from it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.equilibrium import FixedPoint, budget_for, contraction_of


@settings(max_examples=50, deadline=None)
@given(factor=st.floats(0.1, 0.95), tol=st.floats(1e-6, 1e-1), seen=st.integers(2, 40))
def test_a_geometric_trace_tells_its_factor_and_when_it_arrives(
    factor: float, tol: float, seen: int
) -> None:
    trace = factor ** torch.arange(seen, dtype=torch.float64).unsqueeze(1)
    contraction = contraction_of(trace, tol)
    first = math.log(tol) / math.log(factor) + 1  # evaluation 1 has the residual 1
    if seen > 1 and first > 2:
        assert contraction.factor.item() == pytest.approx(factor, rel=1e-6)
    assert abs(contraction.needed.item() - first) <= 1.0 + 1e-6


def test_what_does_not_fall_needs_all_there_is() -> None:
    trace = torch.tensor([[1.0, 1.0], [2.0, 0.1], [torch.nan, 0.01]])
    needed = contraction_of(trace, 1e-3).needed
    assert needed[0] == torch.inf
    assert needed[1] == pytest.approx(4.0)
    assert budget_for(needed, 1.0, 0.0, 2, 40) == 40
    assert budget_for(needed, 0.5, 0.0, 2, 40) == 4
    assert budget_for(needed, 0.5, 0.5, 2, 40) == 6
    assert budget_for(needed, 0.5, 0.0, 10, 40) == 10
    assert budget_for(needed, 0.5, 9.0, 2, 40) == 40


def test_the_budget_of_a_real_solve_brings_its_samples_to_the_tolerance() -> None:
    """Measured on a short solve, the budget is that of a long one, and less does not do."""
    torch.manual_seed(0)
    weight = torch.linalg.qr(torch.randn(8, 8)).Q * 0.7
    x = torch.randn(16, 8)

    def solve(steps: int, trace: bool = False) -> torch.Tensor:
        solver = FixedPoint(max_steps=steps, tol=1e-4, trace=trace)
        solution = solver.solve(lambda z, u: torch.tanh(z @ weight.T + u), torch.zeros(16, 8), x)
        return solution.trace if trace else solution.converged  # type: ignore[return-value]

    needed = contraction_of(solve(6, trace=True), 1e-4).needed
    budget = budget_for(needed, 0.9, 0.2, 2, 100)
    assert solve(budget).float().mean() >= 0.9
    assert solve(budget // 2).float().mean() < 0.9
