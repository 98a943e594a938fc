"""Leaving samples that have ended out of the evaluations."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equipoise.equilibrium import (
    LBFGS,
    AdjointBroyden,
    Anderson,
    Broyden,
    Descent,
    Equilibrium,
    Exact,
    LowRankInverse,
    Shine,
    Solver,
    Status,
)
from tests.equilibrium.objectives import Quadratic
from tests.equilibrium.objectives import uneven as uneven_quadratic
from tests.equilibrium.solvers.problems import SOLVERS, Counted, dense

every_solver = pytest.mark.parametrize("kind", SOLVERS, ids=lambda kind: kind.name)
WIDTH = 12


def uneven(seed: int, batch: int = 6) -> tuple[Counted, Tensor, Tensor]:
    """A problem whose samples end at different steps; f rounds alike in any batch."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64) * 0.8 / WIDTH**0.5
    x = torch.randn(batch, WIDTH, generator=generator, dtype=torch.float64)
    x = x * torch.logspace(-2, 1, batch, dtype=torch.float64).unsqueeze(1)

    def f(z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh((weight * z.unsqueeze(1)).sum(dim=2) + x)

    return Counted(f), torch.zeros_like(x), x


@every_solver
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.01, 0.25, 0.5, 1.0]))
def test_it_changes_the_cost_only(kind: type[Solver], seed: int, share: float) -> None:
    f, z0, x = uneven(seed)
    solver = kind(max_steps=60, tol=1e-6, trace=True, keep_states=(3, 9, 30))
    whole = solver.solve(f, z0, x)
    rows = sum(len(z) for z in f.seen)
    f.seen.clear()
    compact = replace(solver, compact_at=share).solve(f, z0, x)
    assert whole.sample_evaluations == rows
    assert compact.sample_evaluations == sum(len(z) for z in f.seen)
    assert compact.nfe == whole.nfe
    assert torch.equal(compact.status, whole.status)
    assert torch.equal(compact.steps, whole.steps)
    torch.testing.assert_close(compact.z, whole.z, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(compact.residual, whole.residual, rtol=1e-6, atol=1e-14)
    assert compact.trace is not None
    assert whole.trace is not None
    for sample, steps in enumerate(whole.steps.tolist()):
        torch.testing.assert_close(
            compact.trace[:steps, sample], whole.trace[:steps, sample], rtol=1e-6, atol=1e-14
        )
    for found, expected in zip(compact.states, whole.states, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    early = (whole.status == Status.CONVERGED) & (whole.steps < whole.nfe)
    if early.sum() >= share * len(early):
        assert sum(len(z) for z in f.seen) < rows
    assert len(f.seen[-1]) <= len(f.seen[0])


@pytest.mark.parametrize("kind", [Broyden, AdjointBroyden], ids=lambda kind: kind.name)
@pytest.mark.parametrize("memory", [3, 40])
def test_the_inverse_is_put_together_again(kind: type[Broyden], memory: int) -> None:
    f, z0, x = uneven(seed=1)
    solver = kind(max_steps=60, tol=1e-6, memory=memory)
    whole = solver.solve(f, z0, x).inverse
    compact = replace(solver, compact_at=0.1).solve(f, z0, x).inverse
    assert whole is not None
    assert compact is not None
    probe = torch.randn(z0.shape, generator=torch.Generator().manual_seed(0), dtype=z0.dtype)
    torch.testing.assert_close(compact.apply(probe), whole.apply(probe), rtol=1e-7, atol=1e-9)
    newest = [inverse.newest(2).apply_transposed(probe) for inverse in (compact, whole)]
    torch.testing.assert_close(*newest, rtol=1e-7, atol=1e-9)


def test_an_inverse_with_a_scale_and_a_core_is_put_together_again() -> None:
    matrix, shift = uneven_quadratic().matrix, uneven_quadratic().shift
    seen = []

    def objective(z: Tensor, matrix: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(z))
        return Quadratic(matrix, shift).objective(z)

    def solved(share: float | None) -> LowRankInverse:
        descent = Descent(lambda z, *inputs: objective(z, *inputs)[1], objective)
        solver = LBFGS(tol=1e-6, compact_at=share)
        inverse = solver.solve(descent, torch.zeros_like(shift), matrix, shift).inverse
        assert inverse is not None
        return inverse

    whole, compact = solved(None), solved(0.1)
    assert min(seen) < 4
    probe = torch.randn(4, 10, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(compact.apply(probe), whole.apply(probe), rtol=1e-6, atol=1e-6)
    transposed = [inverse.apply_transposed(probe) for inverse in (compact, whole)]
    torch.testing.assert_close(*transposed, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gradient", [Exact(Anderson(tol=1e-12, max_steps=60)), Shine()])
def test_the_gradient_is_the_same(gradient: Exact | Shine) -> None:
    f, z0, x = uneven(seed=2)
    found = []
    for share in (None, 0.1):
        layer = Equilibrium(Broyden(max_steps=60, tol=1e-9, compact_at=share), gradient)
        leaf = x.clone().requires_grad_()
        found.append(torch.autograd.grad(layer(f, z0, leaf).square().sum(), leaf)[0])
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-9)


@every_solver
def test_broken_samples_leave_too(kind: type[Solver]) -> None:
    f, z0, x = uneven(seed=3)
    x[2] = torch.nan
    solution = kind(max_steps=60, tol=1e-6, compact_at=0.1).solve(f, z0, x)
    assert len(f.seen[7]) < 6
    assert solution.status[2] == Status.NON_FINITE
    assert (solution.status != Status.NON_FINITE).sum() == 5
    assert torch.isfinite(solution.z).all()


@every_solver
def test_a_state_in_two_parts(kind: type[Solver]) -> None:
    f, z0, x = uneven(seed=4)

    def parted(state: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        fz = f(torch.cat([part.flatten(1) for part in state], dim=1), x)
        return fz[:, :4].reshape(-1, 2, 2), fz[:, 4:]

    start = (z0[:, :4].reshape(-1, 2, 2), z0[:, 4:])
    solver = kind(max_steps=60, tol=1e-6)
    whole = solver.solve(parted, start, x).z
    compact = replace(solver, compact_at=0.2).solve(parted, start, x).z
    assert len(f.seen[-1]) < 6
    for found, expected in zip(compact, whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_closure_without_inputs_sees_all_rows_always() -> None:
    f, z0, x = uneven(seed=5)
    seen: list[int] = []

    def closed(z: Tensor) -> Tensor:
        seen.append(len(z))
        return f.f(z, x)

    solution = Anderson(max_steps=60, tol=1e-6, compact_at=0.1).solve(closed, z0)
    assert solution.converged.all()
    assert set(seen) == {6}


def test_rows_leave_at_a_check_only() -> None:
    f, z0, x = uneven(seed=6)
    solver = Anderson(max_steps=60, tol=1e-6, check_every=7, compact_at=0.1)
    solver.solve(f, z0, x)
    sizes = [len(z) for z in f.seen]
    changes = [i for i, (a, b) in enumerate(pairwise(sizes), 1) if a != b]
    assert changes
    assert all(change % 7 == 0 for change in changes)


def test_an_input_without_a_row_a_sample_is_refused() -> None:
    f, z0, x = dense()
    with pytest.raises(ValueError, match="read it by closure"):
        Anderson(compact_at=0.5).solve(lambda z, x, w: f(z, x), z0, x, torch.zeros(3))


def test_settings_that_mean_nothing_are_refused() -> None:
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match="compact_at must lie in"):
            Anderson(compact_at=share)
    with pytest.raises(ValueError, match="compact_at needs direction=None"):
        AdjointBroyden(compact_at=0.5, opa_every=2, direction=lambda z: z)
