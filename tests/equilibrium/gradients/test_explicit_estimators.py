"""Jacobian-free, phantom and Neumann gradients against their formulas and the exact gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import (
    Anderson,
    Equilibrium,
    GradientEstimator,
    JacobianFree,
    Neumann,
    Phantom,
)
from equipoise.equilibrium.state import parts
from tests.equilibrium.systems import (
    SYSTEMS,
    System,
    cosine,
    dense,
    dense_gradient,
    fixed_point,
    loss,
    relative_error,
)

STEPS = (1, 2, 3, 5, 10, 20)
DAMPINGS = (0.1, 0.3, 0.5, 0.8, 1.0)


def gradient(problem: System, estimator: GradientEstimator) -> tuple[Tensor, ...]:
    """The gradient of the standard loss by a tight solve and `estimator`."""
    layer = Equilibrium(Anderson(tol=1e-13, max_steps=200), estimator)
    return torch.autograd.grad(loss(layer(problem.f, problem.z0, problem.x)), problem.sources)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("estimator", [Phantom, Neumann])
def test_cosine_with_the_exact_gradient_is_positive(
    system: str, estimator: type[Phantom | Neumann]
) -> None:
    problem = SYSTEMS[system]()
    exact = dense_gradient(problem)
    for steps in STEPS:
        for damping in DAMPINGS:
            assert cosine(gradient(problem, estimator(steps, damping)), exact) > 0


@pytest.mark.parametrize("system", SYSTEMS)
def test_jacobian_free_is_one_undamped_step(system: str) -> None:
    problem = SYSTEMS[system]()
    jacobian_free = gradient(problem, JacobianFree())
    assert relative_error(gradient(problem, Phantom(1, 1.0)), jacobian_free) < 1e-12
    assert relative_error(gradient(problem, Neumann(1, 1.0)), jacobian_free) < 1e-12
    assert cosine(jacobian_free, dense_gradient(problem)) > 0.5


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(("steps", "damping"), [(2, 1.0), (5, 0.5), (7, 0.8)])
def test_neumann_equals_phantom_at_the_fixed_point(system: str, steps: int, damping: float) -> None:
    problem = SYSTEMS[system]()
    neumann = gradient(problem, Neumann(steps, damping))
    assert relative_error(neumann, gradient(problem, Phantom(steps, damping))) < 1e-9


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("estimator", [Neumann(120, 0.8), Phantom(120, 0.8)])
def test_many_steps_become_exact(system: str, estimator: GradientEstimator) -> None:
    problem = SYSTEMS[system]()
    assert relative_error(gradient(problem, estimator), dense_gradient(problem)) < 1e-8


def test_neumann_is_the_truncated_series() -> None:
    problem = dense()
    steps, damping = 4, 0.6
    z = fixed_point(problem)
    assert isinstance(z, Tensor)
    (weight,) = problem.parameters
    slope = 1 - z**2
    cotangent = torch.autograd.grad(loss(z.requires_grad_()), z)[0]
    expected = torch.zeros_like(problem.x)
    for sample in range(len(z)):
        jacobian = slope[sample].detach()[:, None] * weight.detach()
        p = damping * jacobian + (1 - damping) * torch.eye(len(jacobian), dtype=z.dtype)
        powers = sum(torch.linalg.matrix_power(p, k) for k in range(steps))
        expected[sample] = slope[sample] * (damping * powers).T.matmul(cotangent[sample])
    found = gradient(problem, Neumann(steps, damping))[1]
    torch.testing.assert_close(found, expected.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("estimator", [Phantom(3), Neumann(3), JacobianFree()])
def test_the_report_counts_products(estimator: GradientEstimator) -> None:
    problem = dense()
    layer = Equilibrium(Anderson(), estimator)
    loss(layer(problem.f, problem.z0, problem.x)).backward()
    assert layer.report is not None
    assert layer.report.backward is not None
    assert layer.report.backward.nfe == (1 if estimator.name == "jfb" else 3)
    assert layer.report.backward.residual is None


@pytest.mark.parametrize("system", SYSTEMS)
def test_phantom_takes_its_damped_steps_forward(system: str) -> None:
    problem = SYSTEMS[system]()
    layer = Equilibrium(Anderson(max_steps=1, tol=0), Phantom(2, 0.5))
    state = layer(problem.f, problem.z0, problem.x)
    expected = problem.z0
    for _ in range(2):
        after = zip(parts(expected), parts(problem.f(expected, problem.x)), strict=True)
        mixed = tuple(0.5 * a + 0.5 * b for a, b in after)
        expected = mixed if isinstance(problem.z0, tuple) else mixed[0]
    for found, wanted in zip(parts(state), parts(expected), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("estimator", [Phantom, Neumann])
@pytest.mark.parametrize("wrong", [{"steps": 0}, {"damping": 0.0}, {"damping": 1.1}])
def test_wrong_settings_are_refused(
    estimator: type[Phantom | Neumann], wrong: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match=r"at least one step and a damping"):
        estimator(**wrong)


def test_the_jacobian_free_rule_is_the_cotangent_itself_and_takes_no_product() -> None:
    cotangent = torch.ones(2, 3)
    solution = Anderson().solve(lambda z: 0.5 * z, torch.zeros(2, 3))
    w, report = JacobianFree().rule(solution)(cotangent, None)  # type: ignore[arg-type]
    assert w is cotangent
    assert report.nfe == 0
