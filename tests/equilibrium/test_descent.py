"""The descent map of an objective as an equilibrium: every solver, and every estimator."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import (
    LBFGS,
    Anderson,
    Auto,
    ConjugateGradient,
    Descent,
    Equilibrium,
    Exact,
    GradientEstimator,
    JacobianFree,
    Neumann,
    Phantom,
    Reversible,
    Shine,
    Solver,
    Unrolled,
)
from equipoise.equilibrium.state import State
from tests.equilibrium.objectives import gaussian, quadratic, regularized
from tests.equilibrium.solvers.problems import SOLVERS
from tests.equilibrium.systems import (
    System,
    cosine,
    cotangent,
    dense_gradient,
    fixed_point,
    loss,
    relative_error,
)

BACKWARD = ConjugateGradient(tol=1e-12)
EXACT: dict[str, Callable[[], GradientEstimator]] = {
    "exact": lambda: Exact(BACKWARD),
    "exact_by_anderson": lambda: Exact(Anderson(tol=1e-12, max_steps=80)),
    "shine_refined": lambda: Shine(refine_steps=10),
    "neumann": lambda: Neumann(steps=80),
    "unrolled": lambda: Unrolled(steps=80),
    "phantom": lambda: Phantom(steps=80, damping=1.0),
    "auto": lambda: Auto(
        every=1, min_cosine=0.999999, candidates=(JacobianFree(), Exact(BACKWARD))
    ),
}


def gradient(solver: Solver, estimator: GradientEstimator, system: System) -> tuple[Tensor, ...]:
    state = Equilibrium(solver, estimator)(system.f, system.z0, system.x)
    return torch.autograd.grad(loss(state), system.sources)


@pytest.mark.parametrize("name", EXACT)
def test_estimators_of_the_exact_hyper_gradient(name: str) -> None:
    system = regularized()
    found = gradient(LBFGS(tol=1e-10), EXACT[name](), system)
    assert relative_error(found, dense_gradient(system)) < 1e-6


@pytest.mark.parametrize(
    ("estimator", "least"),
    [(JacobianFree(), 0.7), (Shine(1e9), 0.9), (Reversible(steps=10), 0.999)],
    ids=["jfb", "shine", "reversible"],
)
def test_estimators_that_are_cheaper_come_near(estimator: GradientEstimator, least: float) -> None:
    system = regularized()
    assert cosine(gradient(LBFGS(tol=1e-10), estimator, system), dense_gradient(system)) > least


def test_the_dense_hyper_gradient_equals_finite_differences() -> None:
    """The reference itself, in the strengths that the objective reads by closure."""
    system = regularized()
    log_strength = system.parameters[1]
    expected = dense_gradient(system)[1]
    for coefficient in range(5):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                log_strength[coefficient] += step
                values.append(loss(fixed_point(system)))
                log_strength[coefficient] -= step
        slope = (values[0] - values[1]) / 2e-5
        torch.testing.assert_close(slope, expected[coefficient], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", [*SOLVERS, LBFGS], ids=lambda kind: kind.name)
def test_every_solver_finds_the_minimum(kind: type[Solver]) -> None:
    system = regularized()
    found = kind(max_steps=200, tol=1e-9).solve(system.f, system.z0, system.x.detach())
    assert found.converged.all()
    expected = fixed_point(system)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(found.z, expected, rtol=1e-6, atol=1e-7)


def test_conjugate_gradients_find_the_minimum_of_a_quadratic() -> None:
    problem = quadratic()
    found = ConjugateGradient(tol=1e-10).solve(problem.descent(), torch.zeros(4, 10).double())
    torch.testing.assert_close(found.z, problem.solution())


def test_with_outer_updates_the_shared_inverse_is_as_exact_as_the_solution() -> None:
    system = regularized()
    aimed = torch.stack(cotangent(system.z0)).squeeze(0)
    assert isinstance(system.f, Descent)
    system.f.outer_gradient = lambda z: aimed

    def error(tol: float, every: int | None) -> float:
        assert isinstance(system.f, Descent)
        system.f.pairs = None
        found = gradient(LBFGS(tol=tol, opa_every=every), Shine(1e9), system)
        return relative_error(found, dense_gradient(system))

    errors = [error(tol, 5) for tol in (1e-1, 1e-2, 1e-4, 1e-6)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-5
    assert errors[-1] < 1e-3 * error(1e-6, None)


def test_the_map_is_a_step_and_knows_the_values_of_its_latest_evaluation() -> None:
    system = regularized()
    assert isinstance(system.f, Descent)
    z = gaussian(3, 5, seed=6)
    attached: State = system.f(z, system.x)
    assert system.f.values.numel() == 0  # with a graph the objective is not asked
    with torch.no_grad():
        plain = system.f(z, system.x)
    assert isinstance(attached, Tensor)
    assert attached.requires_grad
    torch.testing.assert_close(plain, attached.detach())
    values, direction = system.f.objective(z, system.x)
    assert torch.equal(system.f.values, values)
    torch.testing.assert_close(plain, z - direction)
    (derivative,) = torch.autograd.grad(
        system.f.objective(z.requires_grad_(), system.x)[0].sum(), z
    )
    torch.testing.assert_close(derivative, direction)


def test_pairs_are_carried_through_the_layer() -> None:
    system = regularized()
    assert isinstance(system.f, Descent)
    layer = Equilibrium(LBFGS(tol=1e-9), JacobianFree())
    costs = []
    for _ in range(2):
        layer(system.f, system.z0, system.x)
        assert layer.report is not None
        costs.append(layer.report.nfe)
    assert system.f.pairs is not None
    assert costs[1] < costs[0]
