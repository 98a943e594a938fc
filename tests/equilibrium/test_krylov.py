"""Krylov spaces."""

from __future__ import annotations

import pytest
import torch

from equipoise.equilibrium.krylov import ArnoldiBasis


def basis(matrix: torch.Tensor, start: torch.Tensor, size: int) -> ArnoldiBasis:
    space = ArnoldiBasis(start, size)
    for _ in range(size):
        space.append(torch.bmm(matrix, space.latest().unsqueeze(2)).squeeze(2))
    return space


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 8, 8, generator=generator, dtype=torch.float64)
    return matrix, torch.randn(3, 8, generator=generator, dtype=torch.float64)


def test_the_basis_is_orthonormal_and_satisfies_the_relation() -> None:
    matrix, start = problem()
    space = basis(matrix, start, 5)
    v = space.vectors
    torch.testing.assert_close(
        torch.bmm(v, v.transpose(1, 2)), torch.eye(6, dtype=torch.float64).expand(3, 6, 6)
    )
    left = torch.bmm(matrix, v[:, :5].transpose(1, 2))
    torch.testing.assert_close(left, torch.bmm(v.transpose(1, 2), space.hessenberg))


def test_a_full_space_has_the_eigenvalues_and_solves_the_system() -> None:
    matrix, start = problem()
    space = basis(matrix, start, 8)
    torch.testing.assert_close(
        space.ritz_values().abs().sort(dim=1).values,
        torch.linalg.eigvals(matrix).abs().sort(dim=1).values,
    )
    torch.testing.assert_close(
        torch.bmm(matrix, space.least_squares().unsqueeze(2)).squeeze(2),
        -start,
        rtol=1e-6,
        atol=1e-6,
    )


def test_a_space_that_closes_early_stays_finite() -> None:
    identity = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    start = torch.randn(2, 4, dtype=torch.float64)
    torch.testing.assert_close(
        basis(identity, start, 3).least_squares(), -start, rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("broken", [torch.inf, torch.nan])
def test_where_a_product_is_not_finite_no_step_is_taken(broken: float) -> None:
    matrix, start = problem()
    matrix[1] = broken
    step = basis(matrix, start, 1).least_squares()
    assert not step[1].any()
    assert step[[0, 2]].any(dim=1).all()


def test_a_sample_that_is_not_finite_is_left_alone() -> None:
    matrix, start = problem()
    start[1] = torch.nan
    space = basis(matrix, start, 3)
    assert torch.isnan(space.ritz_values().abs()[1]).all()
    assert torch.isfinite(space.ritz_values().abs()[0]).all()
    assert torch.isfinite(space.least_squares()[[0, 2]]).all()
