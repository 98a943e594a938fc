"""Estimators that bring their own iteration: how it is judged, and what a budget means."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import (
    Equilibrium,
    Exact,
    FixedPoint,
    JacobianFree,
    NotConvergedError,
    Phantom,
    Reversible,
    Status,
    Unrolled,
    with_budget,
)
from tests.equilibrium.systems import SYSTEMS

OWN = [Unrolled(steps=12), Reversible(steps=6)]
own = pytest.mark.parametrize("gradient", OWN, ids=lambda gradient: gradient.name)
stops = pytest.mark.parametrize("stop", ["relative", "absolute", "mixed"])


def contraction(z: Tensor, x: Tensor) -> Tensor:
    return 0.5 * z + x


def solved(gradient: Any, solver: FixedPoint, size: float, **settings: Any) -> Equilibrium:
    layer = Equilibrium(solver, gradient, **settings)
    layer(contraction, torch.zeros(2, 4), torch.tensor([[size], [0.0]]).expand(2, 4))
    return layer


def residual_by_hand(stop: str, z: Tensor, fz: Tensor) -> Tensor:
    gap, size = (fz - z).norm(dim=1), fz.norm(dim=1)
    return {"relative": gap / (size + 1e-9), "absolute": gap, "mixed": gap / (1 + size)}[stop]


@stops
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
@own
def test_the_residual_is_the_solver_s(gradient: Any, size: float, stop: Any) -> None:
    """Both iterations go through scaled copies of one trajectory, whatever the size."""
    pairs: list[tuple[Tensor, Tensor]] = []

    def f(z: Tensor, x: Tensor) -> Tensor:
        pairs.append((z.detach(), contraction(z, x).detach()))
        return contraction(z, x)

    layer = Equilibrium(FixedPoint(tol=1e-3, stop=stop), gradient)
    x = torch.full((1, 4), size, dtype=torch.float64)
    layer(f, torch.zeros_like(x), x)
    expected = residual_by_hand(stop, *pairs[-1])
    assert layer.report is not None
    assert layer.report.residual is not None
    assert layer.report.converged is not None
    torch.testing.assert_close(layer.report.residual, expected)
    assert bool(layer.report.converged) == bool(expected <= 1e-3)


@own
def test_a_state_that_is_near_by_one_rule_alone(gradient: Any) -> None:
    for stop, converged in (("relative", True), ("absolute", False), ("mixed", True)):
        report = solved(gradient, FixedPoint(tol=1e-2, stop=stop), 1e4).report
        assert report is not None
        assert report.converged is not None
        assert bool(report.converged[0]) is converged


@own
def test_a_tolerance_below_rounding_is_raised_to_it(gradient: Any) -> None:
    layer = Equilibrium(FixedPoint(tol=1e-30), with_budget(gradient, 120))
    layer(contraction, torch.zeros(2, 4), torch.ones(2, 4))
    assert layer.report is not None
    assert layer.report.counts() == {"converged": 2}


@own
def test_what_is_not_finite_says_so(gradient: Any) -> None:
    layer = Equilibrium(FixedPoint(), gradient)
    layer(lambda z, x: z / z + x, torch.zeros(2, 4), torch.ones(2, 4))
    assert layer.report is not None
    assert layer.report.status is not None
    assert layer.report.status.tolist() == [Status.NON_FINITE] * 2


@pytest.mark.parametrize("mode", ["training", "no_grad"])
@stops
@own
def test_a_failure_raises_by_the_solver_s_rule(gradient: Any, stop: Any, mode: str) -> None:
    solver = FixedPoint(tol=1e-2, stop=stop)
    with torch.set_grad_enabled(mode == "training"):
        if stop == "absolute":
            with pytest.raises(NotConvergedError, match=r"1 of 2 samples.* 0\.01 in 12 evaluat"):
                solved(gradient, solver, 1e4, on_failure="raise")
        else:
            solved(gradient, solver, 1e4, on_failure="raise")
        solved(gradient, FixedPoint(tol=0), 1e4, on_failure="raise")


@pytest.mark.parametrize("budget", [1, 2, 5, 12])
@pytest.mark.parametrize("gradient", [*OWN, Phantom(3), Exact(), JacobianFree()])
def test_a_budget_is_in_evaluations_of_f(gradient: Any, budget: int) -> None:
    problem, calls = SYSTEMS["dense"](), []

    def f(z: Tensor, x: Tensor) -> Tensor:
        calls.append(None)
        return torch.as_tensor(problem.f(z, x))

    layer = Equilibrium(FixedPoint(max_steps=budget, tol=0), with_budget(gradient, budget))
    with torch.no_grad():
        layer(f, problem.z0, problem.x)
    assert layer.report is not None
    assert layer.report.nfe == len(calls)
    whole = 2 * max(budget // 2, 1) if isinstance(gradient, Reversible) else budget
    assert len(calls) == whole
