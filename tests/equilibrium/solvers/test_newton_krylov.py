"""Newton's method with GMRES."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from equipoise.equilibrium import NewtonKrylov
from tests.equilibrium.solvers.problems import dense


def test_a_linear_function_takes_one_step_of_as_many_products_as_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 6, 6, generator=generator, dtype=torch.float64)
    shift = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    solution = NewtonKrylov(krylov_steps=6, max_steps=8, tol=1e-6).solve(
        lambda z: torch.bmm(weight, z.unsqueeze(2)).squeeze(2) + shift, torch.zeros_like(shift)
    )
    assert solution.nfe == 8  # the start, six products, the new iterate
    assert solution.converged.all()


def test_a_budget_that_leaves_one_product_is_spent_on_it() -> None:
    solution = NewtonKrylov(krylov_steps=5, max_steps=3, tol=1e-6).solve(
        lambda z: 3.0 - 2.0 * z, torch.zeros(2, 1, dtype=torch.float64)
    )
    assert solution.nfe == 3  # the start, the product that a line takes, the solution
    assert solution.converged.all()


def test_convergence_is_superlinear() -> None:
    f, z0, x = dense(gain=0.9, batch=2, width=8, dtype=torch.float64)
    solution = NewtonKrylov(krylov_steps=8, max_steps=46, tol=0.0, trace=True).solve(f, z0, x)
    assert solution.trace is not None
    newton_steps = solution.trace[::9].amax(dim=1)  # a row for each iterate
    assert newton_steps[5] <= 1e-11
    for before, after in pairwise(newton_steps[2:6]):
        assert after <= before**1.5


def test_it_solves_where_the_plain_iteration_cannot() -> None:
    def expands(z: torch.Tensor) -> torch.Tensor:
        return 3.0 - z * z  # |f'| = 2.6 at the fixed point

    solution = NewtonKrylov(krylov_steps=2, max_steps=40, tol=1e-6).solve(
        expands, torch.ones(3, 1, dtype=torch.float64)
    )
    assert solution.converged.all()
    torch.testing.assert_close(
        solution.z, torch.full((3, 1), (13**0.5 - 1) / 2, dtype=torch.float64), rtol=1e-6, atol=0.0
    )


def test_no_product_is_refused() -> None:
    with pytest.raises(ValueError, match="krylov_steps"):
        NewtonKrylov(krylov_steps=0)
