"""What every solver promises, whatever its method."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equipoise.equilibrium import (
    AdjointBroyden,
    Anderson,
    Broyden,
    FixedPoint,
    NewtonKrylov,
    Solver,
    Status,
)
from tests.equilibrium.solvers.problems import SOLVERS, Counted, dense, residuals

every_solver = pytest.mark.parametrize("kind", SOLVERS, ids=lambda kind: kind.name)


@every_solver
def test_it_finds_the_fixed_point_and_says_so(kind: type[Solver]) -> None:
    f, z0, x = dense(dtype=torch.float64)
    solution = kind(max_steps=100, tol=1e-8).solve(f, z0, x)
    assert solution.converged.all()
    assert (residuals(f, solution.z, x) <= 1e-8).all()
    torch.testing.assert_close(solution.residual, residuals(f, solution.z, x), rtol=1e-6, atol=0.0)
    assert solution.nfe < 100


@every_solver
@pytest.mark.parametrize("budget", [1, 2, 3, 7])
def test_it_evaluates_f_as_often_as_it_reports_and_never_more_than_allowed(
    kind: type[Solver], budget: int
) -> None:
    f, z0, x = dense()
    counted = Counted(f)
    solution = kind(max_steps=budget, tol=0.0).solve(counted, z0, x)
    assert counted.calls == solution.nfe == budget
    assert (solution.status == Status.BUDGET).all()
    assert torch.isfinite(solution.z).all()


@every_solver
def test_one_evaluation_returns_the_start(kind: type[Solver]) -> None:
    f, z0, x = dense()
    solution = kind(max_steps=1).solve(f, z0, x)
    assert torch.equal(solution.z, z0)
    assert (solution.steps == 1).all()


@every_solver
def test_a_batch_without_samples(kind: type[Solver]) -> None:
    f, z0, x = dense()
    solution = kind().solve(f, z0[:0], x[:0])
    assert isinstance(solution.z, Tensor)
    assert solution.z.shape == (0, 32)
    assert solution.status.shape == (0,)


@every_solver
def test_a_function_that_does_not_read_the_state(kind: type[Solver]) -> None:
    constant = torch.ones(3, 4, requires_grad=True)
    solution = kind(max_steps=20).solve(lambda z: 2 * constant, torch.zeros(3, 4))
    assert solution.converged.all()
    torch.testing.assert_close(solution.z, torch.full((3, 4), 2.0))


@every_solver
def test_tolerance_zero_spends_the_whole_budget(kind: type[Solver]) -> None:
    f, z0, x = dense(gain=0.1)
    assert kind(max_steps=40, tol=0.0).solve(f, z0, x).nfe == 40


@pytest.mark.parametrize(
    "kind", [FixedPoint, Anderson, Broyden, AdjointBroyden], ids=lambda k: k.name
)
@settings(deadline=None, max_examples=10)
@given(gain=st.floats(0.1, 3.0), seed=st.integers(0, 100), budget=st.integers(1, 25))
def test_the_best_iterate_is_never_worse_than_any_visited(
    kind: type[Solver], gain: float, seed: int, budget: int
) -> None:
    f, z0, x = dense(gain=gain, seed=seed, batch=3, width=8)
    counted = Counted(f)
    solution = kind(max_steps=budget, tol=0.0).solve(counted, z0, x)
    visited = torch.stack([residuals(f, z, x) for z in counted.seen])
    lowest = visited.nan_to_num(nan=torch.inf).amin(dim=0)
    torch.testing.assert_close(solution.residual, lowest, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(residuals(f, solution.z, x), lowest, rtol=1e-4, atol=1e-7)
    for sample, step in enumerate(solution.steps.tolist()):
        assert torch.equal(solution.z[sample], counted.seen[step - 1][sample])


@every_solver
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 100), gain=st.floats(0.2, 0.9))
def test_a_sample_is_solved_the_same_alone_and_in_a_batch(
    kind: type[Solver], seed: int, gain: float
) -> None:
    weight = torch.randn(32, 32, generator=torch.Generator().manual_seed(seed)) * gain / 32**0.5
    _, z0, x = dense(seed=seed, batch=5)

    def f(z: Tensor, x: Tensor) -> Tensor:  # a matrix product would round by the batch size
        return torch.tanh((weight * z.unsqueeze(1)).sum(dim=2) + x)

    x = x * torch.logspace(-1, 1, 5).unsqueeze(1)  # so that the samples end at different steps
    solver = kind(max_steps=60, tol=1e-3)
    together = solver.solve(f, z0, x)
    for sample in range(5):
        rows = slice(sample, sample + 1)
        alone = solver.solve(f, z0[rows], x[rows])
        assert alone.status.item() == together.status[sample].item()
        assert alone.steps.item() == together.steps[sample].item()
        error = (alone.z[0] - together.z[sample]).norm() / alone.z.norm()
        assert error <= 1e-6


@every_solver
def test_a_sample_that_is_not_a_number_does_not_touch_the_others(kind: type[Solver]) -> None:
    f, z0, x = dense(batch=3)
    solver = kind(max_steps=40, tol=1e-4)
    healthy = solver.solve(f, z0, x)
    broken = x.clone()
    broken[1] = torch.nan
    solution = solver.solve(f, z0, broken)
    assert solution.status.tolist() == [Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED]
    assert torch.isfinite(solution.z).all()
    for sample in (0, 2):
        torch.testing.assert_close(solution.z[sample], healthy.z[sample], rtol=1e-5, atol=1e-6)


@every_solver
def test_an_infinity_in_the_middle_keeps_the_earlier_best(kind: type[Solver]) -> None:
    f, z0, x = dense(gain=0.9, batch=2)
    calls = 0

    def bursts(z: Tensor, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        fz = f(z, x)
        return fz.index_fill(0, torch.tensor([1]), torch.inf) if calls >= 13 else fz

    solution = kind(max_steps=30, tol=1e-6).solve(bursts, z0, x)
    assert solution.status[1] == Status.NON_FINITE
    assert solution.steps[1] <= 13
    assert torch.isfinite(solution.z).all()
    assert residuals(f, solution.z, x)[1] < 0.5


@every_solver
def test_divergence_is_noticed(kind: type[Solver]) -> None:
    def runs_away(z: Tensor) -> Tensor:  # no fixed point, and growth that no secant cures
        return z + torch.exp(z.abs().clamp(max=60.0)) * (1.0 + z * z)

    solution = kind(max_steps=60, tol=1e-6).solve(runs_away, torch.full((2, 3), 1.0))
    assert not solution.converged.any()
    assert torch.isfinite(solution.z).all()


def test_the_growing_sample_is_reported_as_diverged() -> None:
    factor = torch.tensor([[0.5], [4.0]])
    solution = FixedPoint(max_steps=40, tol=1e-4).solve(
        lambda z: factor * z + 1.0, torch.zeros(2, 3)
    )
    assert solution.status.tolist() == [Status.CONVERGED, Status.DIVERGED]
    assert solution.nfe < 40


def test_a_sample_without_progress_is_reported_as_stagnated() -> None:
    solution = FixedPoint(max_steps=50, tol=1e-4, patience=6).solve(
        lambda z: 1.0 - z, torch.zeros(2, 3)
    )
    assert (solution.status == Status.STAGNATED).all()
    assert solution.nfe == 7  # the start is the best, and six that are no better


def test_a_slow_sample_is_reported_as_out_of_budget() -> None:
    solution = FixedPoint(max_steps=5, tol=1e-6).solve(lambda z: 0.9 * z + 1.0, torch.zeros(2, 3))
    assert (solution.status == Status.BUDGET).all()


@every_solver
@pytest.mark.parametrize("every", [1, 3, 7])
def test_the_host_reads_the_device_at_most_once_in_check_every_evaluations(
    kind: type[Solver], every: int
) -> None:
    f, z0, x = dense(gain=0.95)
    solver = kind(max_steps=30, tol=1e-12, check_every=every)
    reads, nfe = _reads(solver, f, z0, x)
    assert 0 < reads <= nfe // every


@every_solver
def test_the_host_never_reads_the_device_with_tolerance_zero(kind: type[Solver]) -> None:
    f, z0, x = dense()
    reads, _ = _reads(kind(max_steps=12, tol=0.0), f, z0, x)
    assert reads == 0


def _reads(solver: Solver, f: object, z0: Tensor, x: Tensor) -> tuple[int, int]:
    """How often a solve turns a tensor into a number, by any of the ways to do so."""
    reads = 0

    def counting(original: object) -> object:
        def read(self: Tensor, *arguments: object) -> object:
            nonlocal reads
            reads += 1
            return original(self, *arguments)  # type: ignore[operator]

        return read

    names = ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "numpy", "cpu")
    patches = [patch.object(Tensor, name, counting(getattr(Tensor, name))) for name in names]
    for each in patches:
        each.start()
    try:
        nfe = solver.solve(f, z0, x).nfe  # type: ignore[arg-type]
    finally:
        for each in patches:
            each.stop()
    return reads, nfe


@every_solver
def test_rare_checks_change_the_cost_only(kind: type[Solver]) -> None:
    f, z0, x = dense(dtype=torch.float64)
    often = kind(max_steps=60, tol=1e-6).solve(f, z0, x)
    seldom = kind(max_steps=60, tol=1e-6, check_every=5).solve(f, z0, x)
    assert seldom.converged.all()
    assert often.nfe <= seldom.nfe <= often.nfe + 5 + 6  # a Newton step may be under way
    assert (seldom.residual <= 1e-6).all()


@every_solver
def test_a_state_in_two_parts_is_solved_as_one(kind: type[Solver]) -> None:
    f, z0, x = dense(width=12, dtype=torch.float64)

    def parted(state: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        fz = f(torch.cat([part.flatten(1) for part in state], dim=1), x)
        return fz[:, :4].reshape(-1, 2, 2), fz[:, 4:]

    solver = kind(max_steps=80, tol=1e-8)
    whole = solver.solve(f, z0, x)
    first, second = solver.solve(parted, (z0[:, :4].reshape(-1, 2, 2), z0[:, 4:]), x).z
    assert first.shape == (4, 2, 2)
    torch.testing.assert_close(torch.cat((first.flatten(1), second), dim=1), whole.z)


@every_solver
def test_under_autocast_the_tolerance_is_what_the_precision_resolves(kind: type[Solver]) -> None:
    f, z0, x = dense(gain=0.4, width=64)
    with torch.autocast("cpu", torch.bfloat16):
        solution = kind(max_steps=60, tol=1e-7).solve(f, z0, x)
    assert solution.converged.all()
    assert solution.nfe < 60
    assert solution.z.dtype == torch.float32
    assert (solution.residual <= torch.finfo(torch.bfloat16).eps).all()


@pytest.mark.parametrize("stop", ["relative", "absolute", "mixed"])
def test_the_residual_is_measured_as_asked(stop: str) -> None:
    f, z0, x = dense(dtype=torch.float64)
    solution = Broyden(stop=stop, tol=1e-6).solve(f, z0, x)  # type: ignore[arg-type]
    fz = f(solution.z, x)
    gap, size = (fz - solution.z).norm(dim=1), fz.norm(dim=1)
    expected = {"relative": gap / (size + 1e-9), "absolute": gap, "mixed": gap / (1 + size)}[stop]
    torch.testing.assert_close(solution.residual, expected, rtol=1e-5, atol=1e-14)
    assert solution.converged.all()


@every_solver
def test_the_trace_has_a_row_for_every_evaluation(kind: type[Solver]) -> None:
    f, z0, x = dense()
    solution = kind(max_steps=14, tol=0.0, trace=True).solve(f, z0, x)
    assert solution.trace is not None
    assert solution.trace.shape == (14, 4)
    torch.testing.assert_close(solution.trace.amin(dim=0), solution.residual)


def test_chosen_states_are_the_iterates_and_the_result_stands_for_the_rest() -> None:
    f, z0, x = dense(gain=0.3)
    counted = Counted(f)
    solution = Anderson(max_steps=40, tol=1e-4, keep_states=(1, 3, 39, 40)).solve(counted, z0, x)
    assert solution.nfe < 39
    first, third, *rest = solution.states
    assert torch.equal(first, z0)
    assert torch.equal(third, counted.seen[2])
    assert all(torch.equal(state, solution.z) for state in rest)
    assert len(rest) == 2


def test_a_chosen_state_that_is_not_finite_is_replaced_by_the_best() -> None:
    f, z0, x = dense(batch=2)
    broken = x.clone()
    broken[1] = torch.inf
    solution = FixedPoint(max_steps=4, tol=0.0, keep_states=(3,)).solve(
        lambda z, x: f(z, x) + x - x, z0, broken
    )
    assert torch.isfinite(solution.states[0]).all()


@every_solver
def test_no_graph_is_kept_and_the_start_is_not_written_to(kind: type[Solver]) -> None:
    f, z0, x = dense()
    x.requires_grad_()
    before = z0.clone()
    solution = kind(max_steps=8).solve(f, z0, x)
    assert not solution.z.requires_grad
    assert torch.equal(z0, before)


@every_solver
def test_it_runs_in_inference_mode(kind: type[Solver]) -> None:
    with torch.inference_mode():
        f, z0, x = dense()
        assert kind(max_steps=60, tol=1e-4).solve(f, z0, x).converged.all()


def test_the_dtype_of_the_algebra_can_be_chosen() -> None:
    f, z0, x = dense()
    solution = Anderson(dtype="float64", tol=0.0).solve(f, z0, x)
    assert solution.residual.dtype == torch.float64
    assert solution.z.dtype == torch.float32


def test_f_is_given_the_precision_of_the_start() -> None:
    f, z0, x = dense(gain=0.4)
    half = [part.to(torch.bfloat16) for part in (z0, x)]

    def strict(z: Tensor, x: Tensor) -> Tensor:
        assert z.dtype == torch.bfloat16
        return f(z.float(), x.float()).to(torch.bfloat16)

    solution = Anderson(max_steps=40, tol=1e-6).solve(strict, *half)
    assert solution.z.dtype == torch.bfloat16
    assert solution.residual.dtype == torch.float32
    assert solution.converged.all()


def test_an_identity_is_solved_at_once() -> None:
    z0 = torch.randn(3, 4)
    for kind in SOLVERS:
        solution = kind(max_steps=4, tol=1e-6).solve(lambda z: z, z0)
        assert solution.converged.all()
        assert torch.equal(solution.z, z0)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"max_steps": 0}, "max_steps"),
        ({"check_every": 0}, "check_every"),
        ({"patience": 0}, "patience"),
        ({"tol": -1.0}, "tol"),
        ({"tol": float("nan")}, "tol"),
        ({"stop": "max"}, "relative, absolute or mixed"),
        ({"keep_states": (3, 2)}, "keep_states"),
        ({"keep_states": (0,)}, "keep_states"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings_: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FixedPoint(**settings_)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "solver",
    [
        FixedPoint(damping=1.0),
        Anderson(memory=1, ridge=0.0, mixing=1.0),
        Broyden(memory=1),
        AdjointBroyden(memory=1),
        NewtonKrylov(krylov_steps=1),
    ],
    ids=lambda solver: solver.name,
)
def test_the_least_and_the_largest_of_every_setting_solve(solver: Solver) -> None:
    f, z0, x = dense(gain=0.4)
    limits = replace(solver, max_steps=60, patience=60, check_every=1, compact_at=1.0)
    assert limits.solve(f, z0, x).converged.all()


def test_settings_can_be_replaced() -> None:
    solver = replace(NewtonKrylov(krylov_steps=3), max_steps=5, keep_states=[2])
    assert (solver.krylov_steps, solver.max_steps, solver.keep_states) == (3, 5, (2,))


def test_an_f_that_changes_the_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="shape that it takes"):
        FixedPoint().solve(lambda z: z[:, :2], torch.zeros(2, 3))


def test_a_frozen_sample_stays_frozen() -> None:
    calls = 0

    def better_later(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        rate = 1e-4 if calls > 3 else 0.5
        return torch.stack((rate * z[0], 0.99 * z[1]))

    solution = FixedPoint(max_steps=10, tol=0.6, stop="absolute").solve(
        better_later, torch.tensor([[1.0], [100.0]])
    )
    assert solution.steps.tolist() == [1, 10]
    assert solution.z[0] == 1.0


@pytest.mark.parametrize("kind", SOLVERS, ids=lambda kind: kind.name)
def test_the_state_of_the_budget_s_last_evaluation_is_its_iterate(kind: type[Solver]) -> None:
    f, z0, x = dense(gain=3.0, dtype=torch.float64)
    counted = Counted(f)
    solution = kind(max_steps=3, tol=0.0, keep_states=(1, 3)).solve(counted, z0, x)
    torch.testing.assert_close(solution.states[0], z0)
    torch.testing.assert_close(solution.states[1], counted.seen[-1])


def test_a_kept_last_state_is_not_the_best_one_where_the_residual_has_grown() -> None:
    counted = Counted(lambda z: 1.0 - 1.5 * z)
    solution = FixedPoint(max_steps=3, tol=0.0, keep_states=(3,)).solve(counted, torch.zeros(2, 3))
    assert torch.equal(solution.states[0], counted.seen[-1])
    assert not torch.equal(solution.states[0], solution.z)
