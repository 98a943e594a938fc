"""SHINE against dense solves, on the random networks of the literature."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from statistics import median

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import (
    LBFGS,
    Anderson,
    Broyden,
    Equilibrium,
    FixedPoint,
    GradientEstimator,
    JacobianFree,
    Neumann,
    Shine,
    Solution,
)
from equipoise.equilibrium.backward_graph import Rule
from equipoise.equilibrium.solvers import LowRankInverse
from tests.equilibrium.gradients.random_networks import RandomNetwork, draw
from tests.equilibrium.objectives import regularized
from tests.equilibrium.systems import SYSTEMS, cosine, dense, dense_gradient, loss, relative_error

DRAWS = 20
FULL_MEMORY = Broyden(max_steps=18, memory=18, tol=0)


@cache
def problems() -> list[tuple[RandomNetwork, Solution]]:
    networks = [draw(seed) for seed in range(DRAWS)]
    return [(net, FULL_MEMORY.solve(net.f, torch.zeros_like(net.x), net.x)) for net in networks]


def median_error(estimator: Shine | Neumann | JacobianFree) -> float:
    errors = []
    for network, solution in problems():
        assert isinstance(solution.z, Tensor)
        rule: Rule = estimator.rule(solution)
        errors.append(network.error(rule, solution.z))
    return median(errors)


@pytest.mark.parametrize(("steps", "limit"), [(5, 0.17), (10, 0.03)])
def test_refinement_reaches_the_error_of_a_transposed_start(steps: int, limit: float) -> None:
    """A start with the untransposed estimate stays at 0.49 and 0.36."""
    assert median_error(Shine(refine_steps=steps)) <= limit


def test_sharing_alone_is_no_worse_than_the_jacobian_free_gradient() -> None:
    assert median_error(Shine()) <= median_error(JacobianFree()) <= 0.8


def test_ten_neumann_terms_come_within_a_tenth() -> None:
    assert median_error(Neumann(steps=10)) <= 0.10


@pytest.mark.parametrize("system", SYSTEMS)
def test_cosine_with_the_exact_gradient(system: str) -> None:
    problem = SYSTEMS[system]()
    exact = dense_gradient(problem)
    solver = Broyden(tol=1e-12, max_steps=60, memory=40)

    def gradient(estimator: GradientEstimator) -> tuple[Tensor, ...]:
        state = Equilibrium(solver, estimator)(problem.f, problem.z0, problem.x)
        return torch.autograd.grad(loss(state), problem.sources)

    assert cosine(gradient(Shine()), exact) > 0.9
    assert relative_error(gradient(Shine(refine_steps=5)), exact) < 1e-3
    assert relative_error(gradient(Shine(refine_steps=40)), exact) < 1e-8


def test_an_exact_inverse_gives_the_exact_gradient() -> None:
    """Pairs u_i v_i^T that make H equal to (J - I)^-1, sample by sample."""
    network = draw(3)
    width = network.x.shape[1]
    identity = torch.eye(width, dtype=torch.float64)
    pairs = torch.linalg.inv(network.jacobian() - identity) + identity
    inverse = LowRankInverse(identity[None], pairs[None])
    z = network.solution()
    solution = Solution.unsolved(z)
    solution.inverse = inverse
    assert network.error(Shine(fallback_ratio=1e9).rule(solution), z) < 1e-12


def with_an_exact_inverse() -> tuple[RandomNetwork, Solution, Tensor]:
    """H = (J - I)^-1 as -scale I and pairs with a core, in place of plain pairs."""
    network = draw(3)
    width = network.x.shape[1]
    identity = torch.eye(width, dtype=torch.float64)
    scale = torch.full((1, 1), 0.4, dtype=torch.float64)
    core = torch.linalg.inv(network.jacobian() - identity) + scale * identity
    z = network.solution()
    solution = Solution.unsolved(z)
    solution.inverse = LowRankInverse(
        identity[None], identity[None], scale=scale, core=core.reshape(1, width, width)
    )
    return network, solution, z


class NoProducts:
    """The graph of an estimate that is not refined."""

    def product(self, w: Tensor) -> Tensor:
        raise AssertionError("shine takes no product without refinement")


@pytest.mark.parametrize("definite", [False, True])
def test_only_an_estimate_that_is_definite_is_trusted_at_any_length(definite: bool) -> None:
    network, solution, _ = with_an_exact_inverse()
    assert solution.inverse is not None
    long = replace(solution.inverse, scale=torch.full((1, 1), 50.0).double(), definite=definite)
    solution.inverse = long
    c = torch.ones_like(network.x)
    _, report = Shine().rule(solution)(c, NoProducts())
    assert report.fallback is not None
    assert bool(report.fallback.all()) != definite
    _, report = Shine().rule(solution)(c * torch.inf, NoProducts())
    assert report.fallback is not None
    assert bool(report.fallback.all())


@pytest.mark.parametrize("refine_steps", [0, 3])
def test_an_exact_inverse_with_a_scale_and_a_core_gives_the_exact_gradient(
    refine_steps: int,
) -> None:
    network, solution, z = with_an_exact_inverse()
    estimator = Shine(fallback_ratio=1e9, refine_steps=refine_steps)
    assert network.error(estimator.rule(solution), z) < 1e-12


@pytest.mark.parametrize("ratio", [1e9, 1e-9])
def test_refinement_in_the_units_of_the_scale_ends_at_the_exact_gradient(ratio: float) -> None:
    """Also where no estimate is trusted and it begins from the cotangent."""
    problem = regularized()
    expected = dense_gradient(problem)
    errors = []
    for steps in (0, 2, 4, 12):
        layer = Equilibrium(LBFGS(tol=1e-7, memory=3), Shine(ratio, steps))
        state = layer(problem.f, problem.z0, problem.x)
        errors.append(relative_error(torch.autograd.grad(loss(state), problem.sources), expected))
    assert errors[0] > errors[2] > errors[3]
    assert errors[3] < 1e-6


def broken(value: float) -> Solution:
    """A solution whose inverse is `value` times too long for the second of three samples."""
    problem = dense()
    layer_input = problem.x.detach()
    solution = Broyden(tol=1e-12, max_steps=60).solve(problem.f, problem.z0, layer_input)
    assert solution.inverse is not None
    u = solution.inverse.u.clone()
    u[1] *= value
    solution.inverse = replace(solution.inverse, u=u)
    return solution


@pytest.mark.parametrize("refine_steps", [0, 3])
@pytest.mark.parametrize("value", [1e6, float("nan"), float("inf")])
def test_an_untrustworthy_sample_alone_falls_back(value: float, refine_steps: int) -> None:
    problem = dense()
    solution = broken(value)
    state = Shine(refine_steps=refine_steps).attach(problem.f, solution, problem.z0, problem.x)
    found = torch.autograd.grad(loss(state), problem.sources)
    backward = solution.report.backward
    assert backward is not None
    assert backward.fallback is not None
    assert backward.fallback.tolist() == [False, True, False]
    assert cosine(found, dense_gradient(problem)) > 0.9
    if not refine_steps:
        jacobian_free = JacobianFree().attach(problem.f, solution, problem.z0, problem.x)
        expected = torch.autograd.grad(loss(jacobian_free), problem.x)[0]
        torch.testing.assert_close(found[1][1], expected[1])


@pytest.mark.parametrize(("steps", "products"), [(0, 0), (4, 5)])
def test_its_report_counts_the_products_of_a_refinement(steps: int, products: int) -> None:
    problem = dense()
    layer = Equilibrium(Broyden(), Shine(refine_steps=steps))
    loss(layer(problem.f, problem.z0, problem.x)).backward()
    assert layer.report is not None
    assert layer.report.backward is not None
    assert layer.report.backward.nfe == products
    assert (layer.report.backward.residual is not None) == (steps > 0)


@pytest.mark.parametrize("solver", [FixedPoint(), Anderson()])
def test_a_solver_without_an_inverse_is_refused(solver: FixedPoint | Anderson) -> None:
    problem = dense()
    with pytest.raises(ValueError, match="broyden or adjoint_broyden"):
        Equilibrium(solver, Shine())(problem.f, problem.z0, problem.x)


@pytest.mark.parametrize("wrong", [{"fallback_ratio": 0.0}, {"refine_steps": -1}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="shine needs"):
        Shine(**wrong)
