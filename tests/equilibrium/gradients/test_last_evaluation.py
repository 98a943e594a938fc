"""The last evaluation of a spent budget serves the gradient, where it is that of the solution."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, distributed

from equipoise.equilibrium import (
    Anderson,
    Auto,
    Broyden,
    Equilibrium,
    Exact,
    FixedPoint,
    GradientEstimator,
    JacobianFree,
    Neumann,
    NewtonKrylov,
    Phantom,
    Shine,
    Solver,
    State,
)
from equipoise.equilibrium.gradients.last_evaluation import last_evaluation
from tests.equilibrium.solvers.problems import dense
from tests.equilibrium.systems import SYSTEMS, loss, relative_error

ESTIMATORS: dict[str, Callable[[], GradientEstimator]] = {
    "exact": Exact,
    "neumann": Neumann,
    "phantom": Phantom,
    "jfb": JacobianFree,
    "shine": Shine,
    "auto": lambda: Auto(every=2, candidates=(JacobianFree(), Exact())),
}
SOLVERS = (FixedPoint, Anderson, Broyden, NewtonKrylov)
PAIRS = [
    (name, solver)
    for name in ESTIMATORS
    for solver in SOLVERS
    if name != "shine" or solver is Broyden  # the one that keeps an inverse
]


class Watched:
    """f, with a note for each evaluation whether gradients were enabled."""

    def __init__(self, f: Callable[..., Tensor]) -> None:
        self.f = f
        self.graphs: list[bool] = []

    def __call__(self, z: Tensor, *inputs: Tensor) -> Tensor:
        self.graphs.append(torch.is_grad_enabled())
        return self.f(z, *inputs)


def attached(estimator: GradientEstimator, solver: Solver, f: Watched, x: Tensor) -> Tensor:
    """What the estimator makes of a solution that has kept no evaluation."""
    solution = solver.solve(f, torch.zeros_like(x), x)
    state = estimator.attach(f, solution, torch.zeros_like(x), x)
    assert isinstance(state, Tensor)
    return state


def gradient(state: Tensor, x: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(state.sin().sum(), x)
    return found


@pytest.mark.parametrize(("name", "solver"), PAIRS)
def test_it_changes_no_value_and_no_gradient(name: str, solver: type[Solver]) -> None:
    f, z0, x = dense(gain=0.6, dtype=torch.float64)
    x.requires_grad_()
    spent = solver(max_steps=7, tol=0)
    saving, plain = Watched(f), Watched(f)
    layer, estimator = Equilibrium(spent, ESTIMATORS[name]()), ESTIMATORS[name]()
    for _ in range(2):  # the second time auto is between two probes
        found = layer(saving, z0, x)
        expected = attached(estimator, spent, plain, x)
        assert torch.equal(found, expected)
        assert torch.equal(gradient(found, x), gradient(expected, x))
    assert len(plain.graphs) == len(saving.graphs) + 2
    assert saving.graphs[:7] == [False] * 6 + [True]


@pytest.mark.parametrize("system", SYSTEMS)
def test_it_serves_every_kind_of_state(system: str) -> None:
    problem = SYSTEMS[system]()
    spent = Anderson(max_steps=7, tol=0)
    calls: list[bool] = []

    def f(z: State, x: Tensor) -> State:
        calls.append(torch.is_grad_enabled())
        return problem.f(z, x)

    found = torch.autograd.grad(
        loss(Equilibrium(spent, Exact())(f, problem.z0, problem.x)), problem.sources
    )
    assert calls == [False] * 6 + [True]
    solution = spent.solve(f, problem.z0, problem.x)
    state = Exact().attach(f, solution, problem.z0, problem.x)
    assert relative_error(found, torch.autograd.grad(loss(state), problem.sources)) < 1e-10


def test_a_solution_at_an_earlier_iterate_is_evaluated_anew() -> None:
    x = torch.tensor([[1.0], [1.0]], requires_grad=True)
    slope = torch.tensor([[0.5], [-2.5]])  # the second sample diverges, its best iterate is z0
    watched = Watched(lambda z, x: slope * z + x)
    layer = Equilibrium(
        FixedPoint(max_steps=5, tol=0, stop="absolute"), Exact(FixedPoint(max_steps=50, tol=0))
    )
    state = layer(watched, torch.ones(2, 1), x)
    assert watched.graphs == [False] * 4 + [True, True]
    assert state[1].item() == -1.5  # f(z0)


def test_a_sample_that_has_converged_does_not_stand_in_the_way() -> None:
    slope = torch.tensor([[0.01], [0.9]])
    x = torch.ones(2, 1, requires_grad=True)
    watched = Watched(lambda z, x: slope[: len(z)] * z + x)
    layer = Equilibrium(FixedPoint(max_steps=9, tol=1e-4), JacobianFree())
    with pytest.warns(UserWarning, match="1 of 2 samples"):
        state = layer(watched, torch.zeros(2, 1), x)
    assert watched.graphs == [False] * 8 + [True]
    alone = layer(watched, torch.zeros(1, 1), x[:1])
    assert torch.equal(state[:1], alone)


def test_no_graph_is_built_where_no_gradient_is_wanted() -> None:
    f, z0, x = dense()
    watched = Watched(f)
    with torch.no_grad():
        Equilibrium(Anderson(max_steps=5, tol=0), Exact())(watched, z0, x)
    assert watched.graphs == [False] * 5


def test_processes_that_spend_equal_budgets_evaluate_equally_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    f, _, _ = dense()
    assert last_evaluation(f, Anderson(tol=0), Exact()) is not None
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    assert last_evaluation(f, Anderson(tol=0), Exact()) is None
    assert last_evaluation(f, Anderson(tol=1e-3), Exact()) is not None
