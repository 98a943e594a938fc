"""The adjoint Broyden method and its updates for the outer problem."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import AdjointBroyden, Broyden, Exact, State
from equipoise.equilibrium.layer import Equilibrium
from tests.equilibrium.solvers.problems import Counted, dense
from tests.equilibrium.systems import attention, loss


def jacobian(f: object, z: Tensor, x: Tensor) -> Tensor:
    """J_f (D, D) of one sample."""
    return torch.autograd.functional.jacobian(lambda state: f(state, x), z)  # type: ignore[operator]


def test_the_inverse_is_right_along_the_latest_residual() -> None:
    f, z0, x = dense(gain=0.9, batch=1, dtype=torch.float64)
    counted = Counted(f)
    solution = AdjointBroyden(memory=4, max_steps=9, tol=0.0).solve(counted, z0, x)
    assert solution.inverse is not None
    z = counted.seen[-2][0]  # where the last update was made
    sigma = f(z, x[0]) - z
    image = (jacobian(f, z, x[0]) - torch.eye(32, dtype=torch.float64)).T @ sigma
    torch.testing.assert_close(
        solution.inverse.apply_transposed(image.unsqueeze(0))[0], sigma, rtol=1e-7, atol=1e-9
    )


def test_it_needs_fewer_evaluations_than_broyden_and_counts_its_products() -> None:
    f, z0, x = dense(gain=0.95, batch=8, width=128, dtype=torch.float64)
    adjoint = AdjointBroyden(memory=100, max_steps=80, tol=1e-12).solve(f, z0, x)
    secant = Broyden(memory=100, max_steps=80, tol=1e-12).solve(f, z0, x)
    assert adjoint.converged.all()
    assert adjoint.nfe < secant.nfe
    assert adjoint.products == adjoint.report.products == adjoint.nfe - 1


def test_outer_updates_make_the_inverse_right_for_the_loss() -> None:
    errors: dict[str, list[float]] = {"outer": [], "plain": []}
    for seed in range(5):
        f, z0, x = dense(gain=0.8, batch=1, width=128, dtype=torch.float64, seed=seed)
        c = torch.randn(1, 128, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        settings = {"memory": 100, "max_steps": 18, "tol": 0.0}
        plain = AdjointBroyden(**settings)  # type: ignore[arg-type]
        outer = AdjointBroyden(**settings, opa_every=5, direction=lambda z, c=c: c)  # type: ignore[arg-type]
        for name, solver in (("plain", plain), ("outer", outer)):
            solution = solver.solve(f, z0, x)
            matrix = torch.eye(128, dtype=torch.float64) - jacobian(f, solution.z[0], x[0])
            exact = torch.linalg.solve(matrix.T, c[0])
            assert solution.inverse is not None
            error = -solution.inverse.apply_transposed(c)[0] - exact
            errors[name].append((error.norm() / exact.norm()).item())
    assert statistics.median(errors["outer"]) <= 0.32
    assert statistics.median(errors["plain"]) >= 0.4


@pytest.mark.parametrize("every", [1, 2, 3])
def test_outer_updates_come_every_so_many_steps_and_cost_a_product_each(every: int) -> None:
    f, z0, x = dense(batch=1, dtype=torch.float64)
    counted = Counted(f)
    asked: list[int] = []

    def direction(z: State) -> State:
        assert isinstance(z, Tensor)
        asked.append(counted.calls)
        return torch.ones_like(z)

    solver = AdjointBroyden(max_steps=8, tol=0.0, opa_every=every, direction=direction)
    solution = solver.solve(counted, z0, x)
    assert asked == list(range(every, 8, every))
    assert solution.products == 7 + len(asked)


def test_outer_updates_without_a_direction_are_refused() -> None:
    f, z0, x = dense()
    with pytest.raises(ValueError, match="direction"):
        AdjointBroyden(opa_every=5).solve(f, z0, x)


def test_a_function_without_derivatives_is_refused() -> None:
    f, z0, x = dense()
    with pytest.raises(ValueError, match="broyden"):
        AdjointBroyden().solve(torch.no_grad()(f), z0, x)


def test_as_solver_of_the_adjoint_system_of_fused_attention_it_is_refused() -> None:
    problem = attention()
    layer = Equilibrium(Broyden(max_steps=60, tol=1e-5), Exact(AdjointBroyden()))
    with pytest.raises(ValueError, match=r"a kernel in f has none; .* broyden"):
        loss(layer(problem.f, problem.z0, problem.x)).backward()


def test_inside_torch_func_it_is_refused() -> None:
    f, z0, x = dense()
    layer = Equilibrium(AdjointBroyden(), Exact())
    with pytest.raises(ValueError, match=r"torch\.func transforms; use broyden"):
        torch.func.grad(lambda x: layer(f, z0, x).sum())(x)


def test_in_inference_mode_it_takes_secant_updates() -> None:
    f, z0, x = dense()
    with torch.inference_mode():
        solution = AdjointBroyden(max_steps=40).solve(f, z0, x)
    assert solution.converged.all()
    assert solution.products == 0


@pytest.mark.parametrize("bad", [{"memory": 0}, {"opa_every": 0}])
def test_settings_outside_their_range_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        AdjointBroyden(**bad)  # type: ignore[arg-type]


def test_a_given_inverse_saves_evaluations() -> None:
    f, z0, x = dense(gain=0.9, batch=3, dtype=torch.float64)
    settings = {"memory": 40, "max_steps": 60, "tol": 1e-10}
    first = AdjointBroyden(**settings).solve(f, z0, x)  # type: ignore[arg-type]
    near = x + 1e-3
    plain = AdjointBroyden(**settings).solve(f, first.z, near)  # type: ignore[arg-type]
    carried = AdjointBroyden(**settings, initial_inverse=first.inverse).solve(  # type: ignore[arg-type]
        f, first.z, near
    )
    assert carried.converged.all()
    assert carried.nfe < plain.nfe
    torch.testing.assert_close(carried.z, plain.z, rtol=0, atol=1e-8)


@pytest.mark.parametrize("storage", [None, "float32", "bfloat16"])
def test_pairs_are_kept_in_the_precision_of_the_state_or_the_one_asked_for(storage: Any) -> None:
    f, z0, x = dense(dtype=torch.float64)
    solution = AdjointBroyden(storage_dtype=storage, max_steps=60, tol=1e-10).solve(f, z0, x)
    assert solution.converged.all()
    assert solution.z.dtype == torch.float64
    assert solution.inverse is not None
    kept = getattr(torch, storage or "float64")
    assert (solution.inverse.u.dtype, solution.inverse.v.dtype) == (kept, kept)


def test_an_inverse_of_another_shape_is_refused() -> None:
    f, z0, x = dense(batch=2, width=32)
    inverse = AdjointBroyden(max_steps=4, tol=0.0).solve(f, z0, x).inverse
    with pytest.raises(ValueError, match=r"states \(2, 32\), this one is \(4, 32\)"):
        AdjointBroyden(initial_inverse=inverse).solve(*dense(batch=4, width=32))


def test_an_error_within_a_derivative_of_f_is_that_of_f() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, z: Tensor) -> Tensor:
            return 0.5 * z

        @staticmethod
        def backward(ctx: object, cotangent: Tensor) -> Tensor:
            raise RuntimeError("the network's own words")

    with pytest.raises(RuntimeError, match="the network's own words"):
        AdjointBroyden().solve(Broken.apply, torch.ones(2, 3))
