"""The exact estimator against dense implicit differentiation, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import (
    AdjointBroyden,
    AdjointMemory,
    Anderson,
    Broyden,
    ConjugateGradient,
    Equilibrium,
    Exact,
    FixedPoint,
    NewtonKrylov,
    Solver,
)
from equipoise.equilibrium.state import parts
from tests.equilibrium.objectives import regularized
from tests.equilibrium.systems import SYSTEMS, dense_gradient, fixed_point, loss, relative_error

BACKWARD = {
    "anderson": Anderson(tol=1e-12, max_steps=80),
    "broyden": Broyden(tol=1e-12, max_steps=80, memory=60),
    "fixed_point": FixedPoint(tol=1e-12, max_steps=300),
    "newton_krylov": NewtonKrylov(tol=1e-12, max_steps=120),
}
FORWARD = Anderson(tol=1e-13, max_steps=200)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("solver", BACKWARD.values(), ids=BACKWARD)
def test_equals_dense_implicit_differentiation(system: str, solver: Solver) -> None:
    problem = SYSTEMS[system]()
    layer = Equilibrium(FORWARD, Exact(solver))
    found = torch.autograd.grad(loss(layer(problem.f, problem.z0, problem.x)), problem.sources)
    assert relative_error(found, dense_gradient(problem)) < 1e-8


@pytest.mark.parametrize("system", [name for name in SYSTEMS if name != "attention"])
def test_adjoint_broyden_differentiates_the_products_again(system: str) -> None:
    problem = SYSTEMS[system]()
    layer = Equilibrium(FORWARD, Exact(AdjointBroyden(tol=1e-12, max_steps=80, memory=60)))
    state = layer(problem.f, problem.z0, problem.x)
    found = torch.autograd.grad(loss(state), problem.sources, retain_graph=True)
    assert relative_error(found, dense_gradient(problem)) < 1e-8
    assert layer.report is not None
    assert layer.report.backward is not None
    assert layer.report.backward.products > 0
    again = torch.autograd.grad(loss(state), problem.sources)
    assert relative_error(again, found) < 1e-12


@pytest.mark.parametrize("system", SYSTEMS)
def test_dense_implicit_differentiation_equals_finite_differences(system: str) -> None:
    """The reference itself: a step along a random direction in all sources at once."""
    problem = SYSTEMS[system]()
    expected = dense_gradient(problem)
    generator = torch.Generator().manual_seed(5)
    directions = [
        torch.randn(source.shape, generator=generator, dtype=source.dtype)
        for source in problem.sources
    ]

    def shifted(step: float) -> Tensor:
        with torch.no_grad():
            for source, direction in zip(problem.sources, directions, strict=True):
                source.add_(direction, alpha=step)
            value = loss(fixed_point(problem))
            for source, direction in zip(problem.sources, directions, strict=True):
                source.sub_(direction, alpha=step)
        return value

    slope = (shifted(1e-5) - shifted(-1e-5)) / 2e-5
    inner = sum((a * b).sum() for a, b in zip(expected, directions, strict=True))
    torch.testing.assert_close(slope, inner, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("system", SYSTEMS)
def test_values_are_those_of_the_solution(system: str) -> None:
    problem = SYSTEMS[system]()
    state = Equilibrium(FORWARD, Exact())(problem.f, problem.z0, problem.x)
    for part, expected in zip(parts(state), parts(fixed_point(problem)), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-10, atol=1e-10)


def test_one_evaluation_of_f_serves_the_whole_backward_pass() -> None:
    problem = SYSTEMS["dense"]()
    calls = []

    def f(z: Tensor, x: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return problem.f(z, x)

    layer = Equilibrium(Anderson(max_steps=7, tol=0), Exact(Anderson(max_steps=9, tol=0)))
    loss(layer(f, problem.z0, problem.x)).backward()
    assert calls == [False] * 6 + [True]  # the solve's last one keeps its graph
    assert layer.report is not None
    assert layer.report.backward is not None
    assert layer.report.backward.nfe == 9


def test_a_cotangent_of_zero_gives_a_gradient_of_zero() -> None:
    problem = SYSTEMS["dense"]()
    state = Equilibrium(FORWARD, Exact())(problem.f, problem.z0, problem.x)
    weight = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    (found,) = torch.autograd.grad((state * weight[:, None]).sum(), problem.x)
    assert torch.isfinite(found).all()
    assert (found[1] == 0).all()
    assert (found[0] != 0).all()


@pytest.mark.parametrize("broken", [torch.inf, torch.nan])
def test_a_loss_that_is_not_finite_in_one_sample_leaves_the_others_their_gradient(
    broken: float,
) -> None:
    problem = SYSTEMS["dense"]()
    found = []
    for weight in (1.0, broken):
        state = Equilibrium(FORWARD, Exact(BACKWARD["anderson"]))(problem.f, problem.z0, problem.x)
        cotangent = torch.ones_like(state)
        cotangent[1, 0] = weight
        (gradient,) = torch.autograd.grad(state, problem.x, cotangent)
        found.append(gradient)
    torch.testing.assert_close(found[1][::2], found[0][::2], rtol=1e-9, atol=1e-9)
    assert not torch.isfinite(found[1][1]).all()  # and is not passed off as a gradient


def test_a_backward_that_does_not_converge_is_reported() -> None:
    problem = SYSTEMS["dense"]()
    layer = Equilibrium(FORWARD, Exact(Anderson(max_steps=2, tol=1e-12)))
    loss(layer(problem.f, problem.z0, problem.x)).backward()
    assert layer.report is not None
    assert layer.report.backward is not None
    assert layer.report.backward.counts() == {"budget": 3}


REMEMBERING = {
    "conjugate_gradient": ConjugateGradient(tol=1e-8),
    "anderson": Anderson(tol=1e-8, max_steps=60),
    "broyden": Broyden(tol=1e-8, max_steps=60, memory=60),
}


@pytest.mark.parametrize("solver", REMEMBERING.values(), ids=REMEMBERING)
def test_the_next_backward_starts_from_the_adjoint_before(solver: Solver) -> None:
    memory = AdjointMemory()
    layer = Equilibrium(FORWARD, Exact(solver, memory))
    costs = []
    for batch in (3, 3, 2, 2):
        problem = regularized(batch)
        state = layer(problem.f, problem.z0, problem.x)
        found = torch.autograd.grad(loss(state), problem.sources)
        assert relative_error(found, dense_gradient(problem)) < 1e-6
        assert memory.latest is not None
        assert memory.latest.shape == (batch, 5)
        assert layer.report is not None
        assert layer.report.backward is not None
        costs.append(layer.report.backward.nfe)
    assert costs[1] <= 1  # nothing has changed
    assert costs[3] <= 1
    assert min(costs[0], costs[2]) >= 4  # another batch has another adjoint


def test_the_adjoint_is_remembered_in_the_units_of_the_loss() -> None:
    problem, memory = regularized(), AdjointMemory()
    layer = Equilibrium(FORWARD, Exact(REMEMBERING["conjugate_gradient"], memory))
    remembered = []
    for scale in (1.0, 1e-3):
        state = layer(problem.f, problem.z0, problem.x)
        torch.autograd.grad(scale * loss(state), problem.sources)
        assert memory.latest is not None
        remembered.append(memory.latest / scale)
    torch.testing.assert_close(*remembered, rtol=1e-6, atol=1e-9)
    assert layer.report is not None
    assert layer.report.backward is not None
    assert layer.report.backward.nfe == 1  # along the adjoint before, whatever its length


def test_without_a_memory_nothing_is_carried_over() -> None:
    problem = regularized()
    layer = Equilibrium(FORWARD, Exact(REMEMBERING["conjugate_gradient"]))
    found = []
    for _ in range(2):
        state = layer(problem.f, problem.z0, problem.x)
        found.append(torch.autograd.grad(loss(state), problem.x)[0])
    assert torch.equal(*found)
