"""Updates of L-BFGS along the outer loss's gradient, and its inverse as they leave it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import LBFGS, Solution
from tests.equilibrium.objectives import Quadratic, Recorded, gaussian, uneven


def aimed(problem: Quadratic, outer: Tensor, **settings_: float) -> tuple[Solution, Recorded]:
    objective = Recorded(problem.objective)
    solver = LBFGS(tol=1e-7, **settings_)  # type: ignore[arg-type]
    z0 = torch.zeros_like(problem.shift)
    return solver.solve(objective.descent(lambda z: outer), z0), objective


@pytest.mark.parametrize("every", [None, 1, 5])
def test_the_inverse_of_a_sample_is_the_same_alone_and_in_a_batch(every: int | None) -> None:
    problem, outer = uneven(), gaussian(4, 10, seed=77)
    together, _ = aimed(problem, outer, opa_every=every)
    assert together.inverse is not None
    product = together.inverse.apply(outer)
    for sample in range(4):
        rows = slice(sample, sample + 1)
        alone, _ = aimed(problem.rows(rows), outer[rows], opa_every=every)
        assert alone.inverse is not None
        torch.testing.assert_close(
            alone.inverse.apply(outer[rows])[0], product[sample], rtol=1e-5, atol=1e-6
        )


def test_the_inverse_is_right_along_the_last_outer_direction() -> None:
    """H A e = e, for each sample of a batch, also where there is no step before."""
    problem, outer = uneven(), gaussian(4, 10, seed=77)
    for start in (torch.zeros(4, 10).double(), problem.solution()):
        for sample in range(4):
            rows = slice(sample, sample + 1)
            objective = Recorded(problem.rows(rows).objective)
            descent = objective.descent(lambda z, rows=rows: outer[rows])  # type: ignore[misc]
            found = LBFGS(tol=1e-7, opa_every=5, opa_steps=1).solve(descent, start[rows])
            assert found.converged.all()
            e = objective.points[-1] - found.z
            assert found.inverse is not None
            again = -found.inverse.apply(problem.rows(rows).product(e))
            assert (again - e).norm() < 1e-6 * e.norm()


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_updates_at_the_end_bring_the_product_with_the_outer_gradient_to_the_tolerance(
    steps: int,
) -> None:
    problem, outer = uneven(), gaussian(4, 10, seed=77)
    exact = Quadratic(problem.matrix, outer).solution()

    def errors(**settings_: float) -> Tensor:
        found, _ = aimed(problem, outer, **settings_)
        assert found.inverse is not None
        return (-found.inverse.apply(outer) - exact).norm(dim=1) / exact.norm(dim=1)

    plain, fewer, found = (
        errors(),
        errors(opa_every=3, opa_steps=1),
        errors(opa_every=3, opa_steps=steps),
    )
    assert found.mean() < 0.5 * plain.mean()
    assert (found <= 1.01 * fewer).all()
    if steps == 10:
        assert (found < 1e-5).all()


def test_an_adjoint_that_is_known_saves_updates() -> None:
    problem, outer = uneven(), gaussian(4, 10, seed=77)
    exact = Quadratic(problem.matrix, outer).solution()
    known = exact + 1e-3 * exact.norm(dim=1, keepdim=True) * gaussian(4, 10, seed=78)
    known[3] = 0.0  # of a sample nothing is known
    errors = []
    for adjoint in (None, known):
        descent = Recorded(problem.objective).descent(lambda z: outer)
        descent.adjoint = adjoint
        found = LBFGS(tol=1e-7, opa_every=1000, opa_steps=1).solve(descent, 0.0 * problem.shift)
        assert found.inverse is not None
        assert descent.adjoint is not None
        products = torch.stack([-found.inverse.apply(outer), descent.adjoint])
        errors.append((products - exact).norm(dim=2) / exact.norm(dim=1))
    alone, nearby = errors  # that of the first sample is exact without an update
    assert (nearby[:, 1:3] < 0.25 * alone[:, 1:3]).all()
    torch.testing.assert_close(nearby[:, 3], alone[:, 3])


def test_no_update_is_made_where_the_inverse_is_exact() -> None:
    found, _ = aimed(uneven(), gaussian(4, 10, seed=77), opa_every=1000, opa_steps=1000)
    more, _ = aimed(uneven(), gaussian(4, 10, seed=77), opa_every=1000, opa_steps=2000)
    assert found.nfe == more.nfe < 100


@pytest.mark.parametrize("size", [2.0**-20, 2.0**20])
def test_the_updates_do_not_depend_on_the_units_of_the_loss(size: float) -> None:
    outer = gaussian(4, 10, seed=77)
    plain, _ = aimed(uneven(), outer, opa_every=5)
    scaled, _ = aimed(uneven(), size * outer, opa_every=5)
    assert scaled.nfe == plain.nfe
    assert plain.inverse is not None
    assert scaled.inverse is not None
    products = plain.inverse.apply(outer), scaled.inverse.apply(outer)
    torch.testing.assert_close(*products, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("every", [None, 1, 2, 5])
@pytest.mark.parametrize("budget", [1, 2, 3, 4, 7, 12])
def test_the_budget_is_never_exceeded(every: int | None, budget: int) -> None:
    problem, outer = uneven(), gaussian(4, 10, seed=77)
    objective = Recorded(problem.objective)
    solver = LBFGS(max_steps=budget, tol=0.0, opa_every=every, trace=True)
    found = solver.solve(objective.descent(lambda z: outer), torch.zeros(4, 10).double())
    assert len(objective.points) == found.nfe == budget
    assert found.trace is not None
    assert found.trace.shape == (budget, 4)
    assert torch.isfinite(found.z).all()


def test_the_trace_has_a_row_for_the_update_that_ends_the_solve() -> None:
    found, objective = aimed(uneven(), gaussian(4, 10, seed=77), opa_every=5, trace=True)
    assert found.trace is not None
    assert len(found.trace) == found.nfe == len(objective.points)


def test_an_outer_loss_that_is_flat_at_the_minimum_asks_for_no_further_updates() -> None:
    problem = uneven()
    flat = torch.zeros(4, 10).double()
    few, many = (aimed(problem, flat, opa_every=1000, opa_steps=steps)[0] for steps in (1, 10))
    assert few.converged.all()
    assert many.nfe == few.nfe
