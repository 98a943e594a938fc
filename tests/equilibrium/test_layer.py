"""The equilibrium layer: what it takes, what it does about failures, and what it leaves."""

from __future__ import annotations

import copy
import multiprocessing
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from equipoise.equilibrium import (
    Anderson,
    Auto,
    Broyden,
    Equilibrium,
    Exact,
    FixedPoint,
    GradientEstimator,
    JacobianFree,
    NotConvergedError,
    Phantom,
    Shine,
    Status,
    Unrolled,
)
from tests.equilibrium.gradients.estimators import layers
from tests.equilibrium.solvers.problems import Counted, dense


def test_training_and_evaluation_have_their_own_budgets() -> None:
    f, z0, x = dense(gain=0.95)
    layer = Equilibrium(
        FixedPoint(max_steps=3, tol=0.0), JacobianFree(), FixedPoint(max_steps=9, tol=0.0)
    )
    layer(f, z0, x)
    assert layer.report is not None
    assert layer.report.nfe == 3
    layer.eval()(f, z0, x)
    assert layer.report.nfe == 9


def test_solver_and_estimator_can_be_replaced_on_a_live_layer() -> None:
    f, z0, x = dense()
    layer = Equilibrium(FixedPoint(max_steps=3, tol=0.0), JacobianFree())
    layer(f, z0, x)
    layer.solver, layer.gradient = Broyden(max_steps=5, tol=0.0), Unrolled(steps=4)
    layer(f, z0, x)
    assert layer.report is not None
    assert layer.report.nfe == 4  # the estimator's own iteration


def test_f_is_called_once_more_for_the_gradient_where_the_solve_ended_early() -> None:
    f, z0, x = dense()
    for tol, more in ((0.0, 0), (1e-2, 1)):
        counted = Counted(f)
        layer = Equilibrium(Anderson(max_steps=12, tol=tol), JacobianFree())
        layer(counted, z0, x.requires_grad_()).sum().backward()
        assert layer.report is not None
        assert counted.calls == layer.report.nfe + more


@pytest.mark.parametrize("gradient", [Phantom(steps=2), Exact(FixedPoint(max_steps=50))])
def test_a_solver_may_bring_a_solve_of_its_own(gradient: Phantom | Exact) -> None:
    class Halving(FixedPoint):
        """Starts at half of z0."""

        def solve(self, f, z0, *inputs):  # type: ignore[override,no-untyped-def]
            return super().solve(f, z0 / 2, *inputs)

    weight = torch.tensor(0.4, requires_grad=True)
    layer = Equilibrium(Halving(max_steps=3, tol=0), gradient, on_failure="warn")
    layer(lambda z: weight * z + 1, torch.ones(2, 3)).sum().backward()
    assert weight.grad is not None
    assert layer.report.nfe == 3


def test_a_failure_can_raise() -> None:
    f, z0, x = dense(gain=0.95)
    layer = Equilibrium(FixedPoint(max_steps=3, tol=1e-6), JacobianFree(), on_failure="raise")
    with pytest.raises(NotConvergedError, match=r"4 of 4 samples.* 3 evaluations \(4 budget\)"):
        layer(f, z0, x)


def test_a_failure_warns_once_a_layer() -> None:
    f, z0, x = dense(gain=0.95)
    layer = Equilibrium(FixedPoint(max_steps=3, tol=1e-6), JacobianFree())
    with pytest.warns(UserWarning, match="did not reach the tolerance"):
        layer(f, z0, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(f, z0, x)


def test_a_solve_without_tolerance_cannot_fail() -> None:
    f, z0, x = dense(gain=0.95)
    layer = Equilibrium(FixedPoint(max_steps=3, tol=0.0), JacobianFree(), on_failure="raise")
    assert torch.isfinite(layer(f, z0, x)).all()


def test_a_diverged_sample_can_fall_back_to_the_damped_iteration() -> None:
    slope = torch.tensor([[0.5], [-2.5]])  # the damped map of the second has the slope -0.75

    def f(z: Tensor, slope: Tensor) -> Tensor:
        return slope * z + 1.0

    solver = FixedPoint(max_steps=60, tol=1e-4)
    layer = Equilibrium(solver, JacobianFree(), on_failure="fallback")
    with torch.no_grad():
        z = layer(f, torch.zeros(2, 3), slope)
    report = layer.report
    assert report is not None
    assert report.status is not None
    assert report.fallback is not None
    assert report.fallback.tolist() == [False, True]
    assert report.status.tolist() == [Status.CONVERGED, Status.CONVERGED]
    torch.testing.assert_close(z[1], torch.full((3,), 1 / 3.5), rtol=1e-3, atol=0.0)
    alone = solver.solve(f, torch.zeros(2, 3), slope)
    assert torch.equal(z[0], alone.z[0])
    assert report.nfe > alone.nfe


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="raise, warn or fallback"):
        Equilibrium(Anderson(), JacobianFree(), on_failure="ignore")  # type: ignore[arg-type]


def test_jitter_takes_steps_away_in_training_only_and_goes_on_after_a_resume() -> None:
    f, z0, x = dense()

    def budgets(layer: Equilibrium, count: int) -> list[int]:
        spent = []
        for _ in range(count):
            layer(f, z0, x)
            assert layer.report is not None
            spent.append(layer.report.nfe)
        return spent

    def build() -> Equilibrium:
        return Equilibrium(FixedPoint(max_steps=12, tol=0.0), JacobianFree(), jitter=4)

    whole = budgets(build(), 40)
    assert set(whole) == {8, 9, 10, 11, 12}
    first, second = build(), build()
    budgets(first, 7)
    second.load_state_dict(first.state_dict())
    torch.manual_seed(1)
    assert budgets(second, 33) == whole[7:]
    assert set(budgets(copy.deepcopy(second).eval(), 5)) == {12}


def test_without_jitter_the_layer_adds_nothing_to_a_state_dict() -> None:
    assert Equilibrium(Anderson(), JacobianFree()).state_dict() == {}


def test_random_numbers_are_left_alone() -> None:
    f, z0, x = dense()
    layer = Equilibrium(Anderson(), JacobianFree(), jitter=3)
    before = torch.get_rng_state()
    layer(f, z0, x)
    assert torch.equal(torch.get_rng_state(), before)


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.ones(4, 4))
        self.layer = Equilibrium(Anderson(max_steps=60, tol=1e-5), JacobianFree())

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(lambda z, x: torch.tanh(z @ self.weight + x), torch.zeros_like(x), x)


def _train_one_rank(rank: int, folder: str) -> None:
    store = distributed.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    network = nn.parallel.DistributedDataParallel(_Network())
    x = torch.full((3, 4), (0.01, 4.0)[rank])  # far from linear: this rank stops much earlier
    network(x).sum().backward()
    report = network.module.layer.report
    torch.save((report.nfe, network.module.weight.grad), f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


def test_ranks_that_stop_at_different_steps_do_not_wait_for_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_train_one_rank, args=(r, str(tmp_path))) for r in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=120)
        assert process.exitcode == 0
    (first, gradient), (second, other) = (torch.load(tmp_path / f"rank{r}.pt") for r in range(2))
    assert first != second
    assert torch.equal(gradient, other)


Z = torch.zeros(2, 3)


def plain(z: Any, x: Any = None) -> Any:
    return 0.5 * z


@pytest.mark.parametrize(
    ("solver", "gradient", "words"),
    [
        ("anderson", Exact(), "solver must be a solver .* not the string 'anderson'"),
        (Anderson, Exact(), r"not the class Anderson: write Anderson\(\)"),
        (None, Exact(), "solver must be a solver .* not None"),
        (Exact(), Anderson(), "solver must be a solver .* not a value of type Exact"),
        (Anderson(), "exact", "gradient must be an estimator .* not the string 'exact'"),
        (Anderson(), Phantom, r"not the class Phantom: write Phantom\(\)"),
        (Anderson(), None, "gradient must be an estimator .* not None"),
        (Anderson(), Anderson(), "not a value of type Anderson"),
    ],
)
def test_what_is_no_solver_and_no_estimator_is_refused(
    solver: Any, gradient: Any, words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        Equilibrium(solver, gradient)
    layer = Equilibrium(Anderson(), Exact())
    layer.solver, layer.gradient = solver, gradient
    with pytest.raises(TypeError, match=words):
        layer(plain, Z)


def test_a_solver_for_evaluation_is_checked() -> None:
    with pytest.raises(TypeError, match=r"eval_solver must be a solver .* the string"):
        Equilibrium(Anderson(), Exact(), "broyden")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("z0", "error", "words"),
    [
        ({"z": Z}, TypeError, "z0 must be a tensor or a tuple.*dict: pass its values as a tuple"),
        (None, TypeError, "z0 must be a tensor or a tuple of tensors, got None"),
        (0.0, TypeError, "got a value of type float"),
        ((Z, None), TypeError, "every part of z0 must be a tensor, got None"),
        ([Z, [Z]], TypeError, "every part of z0 must be a tensor, got a value of type list"),
        (Z.long(), TypeError, "z0 must be of a floating or complex dtype, got torch.int64"),
        (Z.bool(), TypeError, "got torch.bool"),
        ((), ValueError, "at least one tensor with a batch dimension"),
        (torch.tensor(1.0), ValueError, "batch dimension"),
        ((Z, Z[:1]), ValueError, "share the batch dimension"),
    ],
)
@pytest.mark.parametrize("gradient", ["exact", "unrolled", "reversible"])
def test_what_is_no_state_is_refused(
    gradient: str, z0: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        layers()[gradient](plain, z0)


def test_a_rule_for_the_start_is_checked() -> None:
    layer = Equilibrium(Anderson(), Exact())
    layer.start = lambda z0: None  # type: ignore[assignment, return-value]
    with pytest.raises(TypeError, match="the start of a solve must be a tensor"):
        layer(plain, Z)


def test_repr_shows_solver_and_estimator() -> None:
    layer = Equilibrium(Broyden(max_steps=7), Exact(), Anderson(tol=1e-5), on_failure="raise")
    for part in (
        "solver=Broyden(max_steps=7",
        "gradient=Exact(solver=Anderson(max_steps=20",
        "eval_solver=Anderson(max_steps=30, tol=1e-05",
        "on_failure='raise'",
    ):
        assert part in repr(layer)
    assert "gradient=Auto(" in repr(Equilibrium(Anderson(), Auto()))


@pytest.mark.parametrize("gradient", [Exact(), Shine(), Shine(refine_steps=2), Phantom()])
def test_the_order_of_the_channels_in_memory_changes_nothing(gradient: GradientEstimator) -> None:
    """SHINE's pairs are those of the solve's order, whatever the order of the cotangent."""
    torch.manual_seed(0)
    f = nn.Conv2d(3, 3, 3, padding=1).double()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    weight = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    found = []
    for order in (torch.contiguous_format, torch.channels_last):
        layer = Equilibrium(Broyden(tol=1e-10, max_steps=60), gradient)
        z0 = torch.zeros_like(x).contiguous(memory_format=order)
        z = layer(lambda z, x: 0.9 * torch.tanh(f(z) + x), z0, x)
        f.zero_grad()
        (z * weight).sum().backward()
        found.append((z.detach(), f.weight.grad.clone()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
