"""Anderson acceleration."""

from __future__ import annotations

import pytest
import torch

from equipoise.equilibrium import Anderson, FixedPoint
from tests.equilibrium.solvers.problems import Counted, dense


def test_on_a_linear_function_a_full_window_ends_after_as_many_steps_as_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 6, 6, generator=generator, dtype=torch.float64) * 0.3
    shift = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    solver = Anderson(memory=8, ridge=0.0, max_steps=10, tol=1e-9)
    solution = solver.solve(
        lambda z: torch.bmm(weight, z.unsqueeze(2)).squeeze(2) + shift, torch.zeros_like(shift)
    )
    assert solution.converged.all()
    assert solution.nfe <= 8


@pytest.mark.parametrize("mixing", [1.0, 0.6])
def test_the_weights_minimise_the_combined_residual(mixing: float) -> None:
    f, z0, x = dense(gain=0.9, dtype=torch.float64, batch=1)
    counted = Counted(f)
    Anderson(memory=3, ridge=0.0, mixing=mixing, max_steps=6, tol=0.0).solve(counted, z0, x)
    for step in range(3, 6):
        z = torch.cat(counted.seen[step - 3 : step])
        fz = f(z, x)
        g = fz - z
        differences = (g[1:] - g[0]).T
        coefficients = torch.linalg.lstsq(differences, -g[0].unsqueeze(1)).solution.squeeze(1)
        weights = torch.cat((1 - coefficients.sum().reshape(1), coefficients))
        expected = weights @ (fz - (1 - mixing) * g)
        torch.testing.assert_close(counted.seen[step][0], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("gain", [0.5, 0.9])
def test_small_residuals_do_not_drown_in_the_ridge(gain: float) -> None:
    f, z0, x = dense(gain=gain, batch=16, width=128)
    anderson = Anderson(max_steps=25, tol=0.0).solve(f, z0, x).residual.median()
    picard = FixedPoint(max_steps=25, tol=0.0).solve(f, z0, x).residual.median()
    assert anderson <= 2e-6
    assert anderson <= 1.5 * picard


def test_a_singular_window_takes_the_plain_step() -> None:
    solution = Anderson(max_steps=12, tol=0.0, ridge=0.0).solve(
        lambda z: torch.full_like(z, 2.0), torch.zeros(2, 3)
    )
    assert torch.equal(solution.z, torch.full((2, 3), 2.0))


def test_a_memory_of_one_is_the_plain_iteration() -> None:
    f, z0, x = dense(dtype=torch.float64)
    window = Anderson(memory=1, max_steps=8, tol=0.0).solve(f, z0, x)
    plain = FixedPoint(max_steps=8, tol=0.0).solve(f, z0, x)
    torch.testing.assert_close(window.z, plain.z, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bad", [{"memory": 0}, {"ridge": -1.0}, {"mixing": 0.0}, {"mixing": 2.0}])
def test_settings_outside_their_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="memory"):
        Anderson(**bad)  # type: ignore[arg-type]
