"""Broyden's method with limited memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import Broyden
from tests.equilibrium.solvers.problems import Counted, dense


def explicit_broyden(f: Counted, z0: Tensor, memory: int, evaluations: int) -> list[Tensor]:
    """The iterates of one sample by the textbook, H = prod_i (I + a_i s_i^T) (-I) as a matrix.

    Where `memory` factors are kept, the older half goes; the latest step then makes no factor.
    """
    z, iterates, factors = z0, [z0], []
    g = f(z) - z
    identity = torch.eye(z.numel(), dtype=z.dtype)
    for _ in range(evaluations - 1):
        h = -identity
        for a, s in factors:
            h = h + torch.outer(a, s @ h)
        step = -h @ g
        z = z + step
        iterates.append(z)
        new = f(z) - z
        if len(factors) == memory:
            kept = factors[memory - (memory - 1) // 2 :]
            factors = [*kept, (torch.zeros_like(step), step)] if kept else []
        else:
            change = h @ (new - g)
            factors.append(((step - change) / (step @ change), step))
        g = new
    return iterates


@pytest.mark.parametrize("memory", [1, 2, 4, 50])
def test_the_iterates_are_those_of_the_textbook(memory: int) -> None:
    f, z0, x = dense(gain=0.9, batch=2, width=12, dtype=torch.float64)
    counted = Counted(f)
    Broyden(memory=memory, max_steps=9, tol=0.0).solve(counted, z0, x)
    for sample in range(2):
        row = x[sample]
        expected = explicit_broyden(Counted(lambda z, row=row: f(z, row)), z0[sample], memory, 9)
        for seen, want in zip(counted.seen, expected, strict=True):
            torch.testing.assert_close(seen[sample], want, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("memory", [3, 5, 30])
def test_the_stored_inverse_keeps_the_latest_secant_condition(memory: int) -> None:
    f, z0, x = dense(gain=0.9, dtype=torch.float64)
    counted = Counted(f)
    solution = Broyden(memory=memory, max_steps=13, tol=0.0).solve(counted, z0, x)
    assert solution.inverse is not None
    before, after = counted.seen[-3], counted.seen[-2]  # the last pair taken in
    y = (f(after, x) - after) - (f(before, x) - before)
    torch.testing.assert_close(solution.inverse.apply(y), after - before, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("memory", [5, 10])
def test_limited_memory_stays_finite_where_f_expands(memory: int) -> None:
    f, z0, x = dense(gain=1.2, batch=16, width=128, scale=0.3)
    solver = Broyden(memory=memory, max_steps=60, tol=0.0, trace=True)
    solution = solver.solve(f, z0, x)
    assert solution.trace is not None
    assert torch.isfinite(solution.trace).all()
    assert solution.residual.median() <= 2e-2


def test_pairs_in_half_precision_serve_as_well() -> None:
    f, z0, x = dense(batch=8, width=64)
    solution = Broyden(storage_dtype="bfloat16", max_steps=40, tol=1e-5).solve(f, z0, x)
    assert solution.converged.all()
    assert solution.inverse is not None
    assert solution.inverse.u.dtype == torch.bfloat16


def test_a_given_inverse_saves_evaluations() -> None:
    f, z0, x = dense(gain=0.95, dtype=torch.float64)
    solver = Broyden(memory=40, max_steps=60, tol=1e-9)
    first = solver.solve(f, z0, x)
    again = replace(solver, initial_inverse=first.inverse).solve(f, z0, 1.02 * x)
    cold = solver.solve(f, z0, 1.02 * x)
    assert again.converged.all()
    assert again.nfe < 0.75 * cold.nfe


def test_the_transposed_inverse_starts_the_adjoint_solve() -> None:
    generator = torch.Generator().manual_seed(0)
    jacobian = 0.8 * torch.randn(16, 16, generator=generator, dtype=torch.float64) / 4
    c = torch.randn(1, 16, generator=generator, dtype=torch.float64)
    solver = Broyden(memory=40, max_steps=40, tol=1e-9)
    forward = solver.solve(lambda z: z @ jacobian.T + c, torch.zeros_like(c))
    assert forward.inverse is not None
    started = -forward.inverse.apply_transposed(c)
    warm = replace(solver, memory=80, initial_inverse=forward.inverse.transposed())
    adjoint = warm.solve(lambda w: w @ jacobian + c, started)
    exact = torch.linalg.solve(torch.eye(16, dtype=torch.float64) - jacobian.T, c[0])
    torch.testing.assert_close(adjoint.z[0], exact, rtol=1e-7, atol=1e-8)
    assert adjoint.nfe < solver.solve(lambda w: w @ jacobian + c, c).nfe


def test_an_inverse_of_another_shape_is_refused() -> None:
    f, z0, x = dense(width=8)
    inverse = Broyden().solve(f, z0, x).inverse
    with pytest.raises(ValueError, match="initial inverse"):
        Broyden(initial_inverse=inverse).solve(lambda z: 0.5 * z, torch.zeros(2, 8))


def test_the_inverse_of_a_sample_that_ended_is_kept() -> None:
    f, z0, x = dense(batch=2, dtype=torch.float64)
    x = torch.stack((10 * x[0], 0.1 * x[1]))  # the first saturates and ends early
    solver = Broyden(memory=3, max_steps=60, tol=1e-8)
    together = solver.solve(f, z0, x)
    assert together.steps[0] < together.steps[1] - 4
    alone = solver.solve(f, z0[:1], x[:1])
    assert together.inverse is not None
    assert alone.inverse is not None
    c = torch.ones(2, 32, dtype=torch.float64)
    torch.testing.assert_close(
        together.inverse.apply_transposed(c)[0], alone.inverse.apply_transposed(c[:1])[0]
    )


def test_no_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="memory"):
        Broyden(memory=0)


def test_without_a_step_the_inverse_is_the_given_one_and_later_it_goes_on_from_it() -> None:
    f, z0, x = dense(gain=0.9, batch=3, width=16, dtype=torch.float64)
    given = Broyden(memory=6, max_steps=7, tol=0.0).solve(f, z0, x).inverse
    assert given is not None
    solver = Broyden(memory=6, initial_inverse=given, tol=0.0)
    c = torch.randn(3, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    at_once = replace(solver, max_steps=1).solve(f, z0, x + 0.1).inverse
    assert at_once is not None
    torch.testing.assert_close(at_once.apply(c), given.apply(c))
    counted = Counted(f)
    later = replace(solver, max_steps=5).solve(counted, z0, x + 0.1).inverse
    assert later is not None
    gaps = [f(z, x + 0.1) - z for z in counted.seen]
    # the first step is that of the given inverse, the last pair taken in fits the later one
    torch.testing.assert_close(counted.seen[1], z0 - given.apply(gaps[0]))
    step = counted.seen[-2] - counted.seen[-3]
    torch.testing.assert_close(later.apply(gaps[-2] - gaps[-3]), step, rtol=1e-7, atol=1e-10)


def test_a_given_inverse_stays_with_its_samples_where_others_leave_the_batch() -> None:
    f, z0, x = dense(gain=0.9, batch=4, dtype=torch.float64)
    x = x * torch.tensor([[10.0], [0.01], [1.0], [3.0]], dtype=torch.float64)
    given = Broyden(memory=6, max_steps=7, tol=0.0).solve(f, z0, x).inverse
    solver = Broyden(max_steps=60, tol=1e-9, initial_inverse=given)
    whole = solver.solve(f, z0, x + 0.01)
    compact = replace(solver, compact_at=0.01).solve(f, z0, x + 0.01)
    assert compact.sample_evaluations < whole.sample_evaluations
    assert torch.equal(compact.steps, whole.steps)
    torch.testing.assert_close(compact.z, whole.z, rtol=0, atol=1e-8)
