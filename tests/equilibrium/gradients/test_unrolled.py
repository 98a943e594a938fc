"""Unrolling against autograd through the same iterations."""

from __future__ import annotations

import pytest
import torch

from equipoise.equilibrium import Equilibrium, FixedPoint, Unrolled
from tests.equilibrium.systems import SYSTEMS, loss, relative_error


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("steps", [1, 4])
def test_equals_autograd_through_the_same_iterations(
    system: str, checkpoint: bool, steps: int
) -> None:
    problem = SYSTEMS[system]()
    layer = Equilibrium(FixedPoint(), Unrolled(steps, checkpoint))
    state = layer(problem.f, problem.z0, problem.x)
    expected_state = problem.z0
    for _ in range(steps):
        expected_state = problem.f(expected_state, problem.x)
    found = torch.autograd.grad(
        loss(state), problem.sources, allow_unused=True, materialize_grads=True
    )
    expected = torch.autograd.grad(
        loss(expected_state), problem.sources, allow_unused=True, materialize_grads=True
    )
    assert relative_error(found, expected) < 1e-12


def test_the_start_state_gets_a_gradient() -> None:
    problem = SYSTEMS["dense"]()
    start = torch.ones_like(problem.x).requires_grad_()
    state = Equilibrium(FixedPoint(), Unrolled(2))(problem.f, start, problem.x)
    assert torch.autograd.grad(loss(state), start)[0].abs().min() > 0


def test_the_report_tells_steps_and_residual() -> None:
    problem = SYSTEMS["dense"]()
    layer = Equilibrium(FixedPoint(tol=1e-6), Unrolled(40))
    loss(layer(problem.f, problem.z0, problem.x)).backward()
    report = layer.report
    assert report is not None
    assert report.nfe == 40
    assert report.converged is not None
    assert report.converged.all()
    assert report.backward is not None
    assert (report.backward.nfe, report.backward.residual) == (40, None)


def test_second_derivatives_are_those_of_finite_differences() -> None:
    problem = SYSTEMS["dense"]()
    layer = Equilibrium(FixedPoint(), Unrolled(3))
    (weight,) = problem.parameters
    inputs = (weight.detach().requires_grad_(),)

    def value(weight: torch.Tensor) -> torch.Tensor:
        state = layer(lambda z, x: torch.tanh(z @ weight.T + x), problem.z0, problem.x.detach())
        return loss(state)

    assert torch.autograd.gradgradcheck(value, inputs)


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        Unrolled(steps=0)
