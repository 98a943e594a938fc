"""Conjugate gradients against dense solves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equipoise.equilibrium import (
    ConjugateGradient,
    Equilibrium,
    Exact,
    FixedPoint,
    Solution,
    Status,
)
from equipoise.equilibrium.flat_function import AffineMap
from equipoise.equilibrium.solution import Stop
from tests.equilibrium.objectives import Quadratic, gaussian, quadratic


class Products:
    """z -> J z + c with J = I - A, and how many products with J were asked for."""

    def __init__(self, system: Quadratic) -> None:
        self.system = system
        self.calls = 0

    def linear(self, z: Tensor) -> Tensor:
        self.calls += 1
        return z - self.system.product(z)

    def affine(self) -> AffineMap:
        return AffineMap(self.linear, self.system.shift)


def solve(system: Quadratic, start: Tensor, **settings_: float) -> Solution:
    solver = ConjugateGradient(**settings_)  # type: ignore[arg-type]
    return solver.solve(Products(system).affine(), start)


def with_spectrum(*values: float, shift: Tensor | None = None) -> Quadratic:
    """One sample, in a turned basis."""
    basis = torch.linalg.qr(gaussian(len(values), len(values), seed=9))[0]
    matrix = basis @ torch.tensor(values, dtype=torch.float64).diag() @ basis.T
    return Quadratic(matrix[None], gaussian(1, len(values), seed=10) if shift is None else shift)


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 4),
    width=st.integers(1, 12),
    lowest=st.floats(0.01, 0.9),
    seed=st.integers(0, 1000),
)
def test_it_equals_a_dense_solve(batch: int, width: int, lowest: float, seed: int) -> None:
    system = quadratic(batch, width, lowest, seed)
    found = solve(system, gaussian(batch, width, seed=seed + 2), tol=1e-12, max_steps=60)
    assert found.converged.all()
    torch.testing.assert_close(found.z, system.solution(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("start", ["constant", "copy", "zero"])
def test_it_takes_as_many_products_as_there_are_eigenvalues(start: str) -> None:
    system = with_spectrum(0.1, 0.3, 0.6, 1.0, 1.0, 0.3, 0.1, 0.1)
    c = system.shift
    z0 = {"constant": c, "copy": c.clone(), "zero": torch.zeros_like(c)}[start]
    found = solve(system, z0, tol=1e-12)
    assert found.nfe == 4
    assert found.converged.all()


@pytest.mark.parametrize("factor", [1.0, 1e6, -1e-6])
def test_a_start_along_the_solution_takes_one_product(factor: float) -> None:
    system = quadratic()
    found = solve(system, factor * system.solution(), tol=1e-10)
    assert found.nfe == 1
    torch.testing.assert_close(found.z, system.solution())


def test_a_start_near_the_solution_saves_products() -> None:
    system = quadratic(width=40, lowest=0.01)
    near = system.solution() + 1e-5 * gaussian(4, 40, seed=3)
    alone = solve(system, system.shift, tol=1e-6)
    assert solve(system, near, tol=1e-6).nfe < 0.7 * alone.nfe


def test_rows_that_start_at_their_constant_go_on_as_they_would_alone() -> None:
    system = quadratic(batch=2, width=6)
    start = system.shift.clone()
    start[1] = gaussian(6, seed=4)
    found = solve(system, start, tol=0, max_steps=3)
    alone = solve(system.rows(slice(0, 1)), start[:1], tol=0, max_steps=3)
    assert torch.equal(found.z[:1], alone.z)


def test_samples_that_are_solved_wait_for_the_others() -> None:
    """Their steps would be 0 / 0; also in a search that ends for all at once."""
    hard = with_spectrum(*(0.01 * 1.5**i for i in range(11)))
    matrix = torch.cat([hard.matrix, torch.eye(11).double()[None], hard.matrix])
    shift = torch.cat([hard.shift, hard.shift, torch.zeros_like(hard.shift)])
    system = Quadratic(matrix, shift)
    for units in (None, shift.norm(dim=1).clamp(min=1e-9)):
        found = ConjugateGradient(tol=1e-10).solve(
            Products(system).affine(), shift, coupled_units=units
        )
        assert found.converged.all()
        torch.testing.assert_close(found.z, system.solution(), rtol=1e-6, atol=1e-9)
    budget = solve(system, shift, tol=0.0, max_steps=400)
    torch.testing.assert_close(budget.z, system.solution(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("spectrum", "what"), [((0.0, 0.5, 1.0), "singular"), ((-0.3, 0.5, 1.0), "indefinite")]
)
def test_a_matrix_that_is_not_definite_is_told_and_harms_no_other(
    spectrum: tuple[float, ...], what: str
) -> None:
    bad, good = with_spectrum(*spectrum), with_spectrum(0.2, 0.5, 1.0)
    system = Quadratic(torch.cat([bad.matrix, good.matrix]), torch.cat([bad.shift, good.shift]))
    found = solve(system, system.shift, tol=1e-10, max_steps=50)
    assert found.status.tolist() == [Status.NON_FINITE, Status.CONVERGED], what
    assert torch.isfinite(found.z).all()
    torch.testing.assert_close(found.z[1:], good.solution())


def test_a_constant_that_is_not_a_number_is_told() -> None:
    system = quadratic(batch=2)
    system.shift[0, 0] = torch.nan
    found = solve(system, torch.ones_like(system.shift), tol=1e-8)
    assert found.status.tolist() == [Status.NON_FINITE, Status.CONVERGED]
    assert torch.isfinite(found.z).all()


@pytest.mark.parametrize("budget", [1, 2, 5])
def test_the_budget_counts_products(budget: int) -> None:
    system = Products(quadratic(width=40, lowest=0.01))
    solver = ConjugateGradient(max_steps=budget, tol=0.0, trace=True)
    found = solver.solve(system.affine(), system.system.shift)
    assert system.calls == found.nfe == budget
    assert (found.status == Status.BUDGET).all()
    assert found.trace is not None
    assert found.trace.shape == (budget, 4)
    torch.testing.assert_close(found.trace.amin(dim=0), found.residual)


def test_nothing_is_spent_where_nothing_is_to_be_solved() -> None:
    system = quadratic()
    found = ConjugateGradient(trace=True).solve(
        Products(Quadratic(system.matrix, torch.zeros_like(system.shift))).affine(), system.shift
    )
    assert found.nfe == 0
    assert found.converged.all()
    assert (found.z == 0).all()
    assert found.trace is not None
    assert found.trace.shape == (0, 4)


@pytest.mark.parametrize("stop", ["absolute", "relative"])
@pytest.mark.parametrize("tol", [1e-2, 1e-5, 1e-9])
def test_a_tighter_tolerance_costs_more_and_is_met(tol: float, stop: Stop) -> None:
    system = quadratic(width=60, lowest=0.005)
    found, loose = (
        ConjugateGradient(tol=each, stop=stop).solve(Products(system).affine(), system.shift)
        for each in (tol, 10 * tol)
    )
    assert found.nfe > loose.nfe
    value = system.shift + found.z - system.product(found.z)
    size = 1.0 if stop == "absolute" else value.norm(dim=1)
    residual = (value - found.z).norm(dim=1) / size
    assert (residual <= 1.001 * tol).all()
    torch.testing.assert_close(found.residual, residual, rtol=1e-3, atol=1e-13)


def test_a_map_that_does_not_tell_its_constant_costs_one_evaluation_more() -> None:
    system = quadratic()
    calls = []

    def f(z: Tensor) -> Tensor:
        calls.append(z)
        return z - system.product(z) + system.shift

    found = ConjugateGradient(tol=1e-10, trace=True).solve(f, system.solution())
    assert len(calls) == found.nfe == 2
    assert found.trace is not None
    assert found.trace.shape == (2, 4)
    torch.testing.assert_close(found.z, system.solution())
    only = ConjugateGradient(max_steps=1).solve(f, system.solution())
    assert (only.z == 0).all()
    assert only.nfe == 1


def test_single_precision_reaches_its_own_last_digits() -> None:
    system = quadratic(width=20, lowest=0.05)
    single = Quadratic(system.matrix.float(), system.shift.float())
    found = solve(single, single.shift, tol=1e-6)
    assert found.converged.all()
    assert found.nfe < 60
    torch.testing.assert_close(found.z, system.solution().float(), rtol=1e-3, atol=1e-4)


def test_an_adjoint_of_zero_stays_zero_beside_others() -> None:
    """A loss that does not read one of the samples."""
    system = quadratic(width=12, lowest=0.02)
    shift = system.shift.clone().requires_grad_()
    layer = Equilibrium(FixedPoint(max_steps=3000, tol=1e-10), Exact(ConjugateGradient(tol=1e-10)))
    state = layer(lambda z: z - system.product(z) + shift, torch.zeros_like(shift))
    weight = gaussian(4, 12, seed=5) * torch.tensor([[1.0], [0.0], [1e-6], [1.0]]).double()
    (found,) = torch.autograd.grad((weight * state).sum(), shift)
    expected = Quadratic(system.matrix, weight).solution()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)
    report = layer.report and layer.report.backward
    assert report is not None
    assert report.counts() == {"converged": 4}
