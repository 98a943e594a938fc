"""Where estimators start: at the last evaluation of a spent budget, or with their own iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from equipoise.equilibrium import (
    AdjointBroyden,
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
    NotConvergedError,
    Phantom,
    Reversible,
    Shine,
    Solver,
    State,
    Status,
    Unrolled,
    with_budget,
)
from equipoise.equilibrium.backward_graph import Rule
from equipoise.equilibrium.flat_function import FlatFunction
from equipoise.equilibrium.gradients.estimator import CotangentRule, last_evaluation_origin
from equipoise.equilibrium.iteration import Iteration
from equipoise.equilibrium.solution import Solution, SolveReport
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
OWN = [Unrolled(steps=12), Reversible(steps=6)]
own = pytest.mark.parametrize("gradient", OWN, ids=lambda gradient: gradient.name)
stops = pytest.mark.parametrize("stop", ["relative", "absolute", "mixed"])


def contraction(z: Tensor, x: Tensor) -> Tensor:
    return 0.5 * z + x


def solved(gradient: Any, solver: FixedPoint, size: float, **settings: Any) -> Equilibrium:
    layer = Equilibrium(solver, gradient, **settings)
    layer(contraction, torch.zeros(2, 4), torch.tensor([[size], [0.0]]).expand(2, 4))
    return layer


def residual_by_hand(stop: str, z: Tensor, fz: Tensor) -> Tensor:
    gap, size = (fz - z).norm(dim=1), fz.norm(dim=1)
    return {"relative": gap / (size + 1e-9), "absolute": gap, "mixed": gap / (1 + size)}[stop]


@stops
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
@own
def test_the_residual_is_the_solver_s(gradient: Any, size: float, stop: Any) -> None:
    """Both iterations go through scaled copies of one trajectory, whatever the size."""
    pairs: list[tuple[Tensor, Tensor]] = []

    def f(z: Tensor, x: Tensor) -> Tensor:
        pairs.append((z.detach(), contraction(z, x).detach()))
        return contraction(z, x)

    layer = Equilibrium(FixedPoint(tol=1e-3, stop=stop), gradient)
    x = torch.full((1, 4), size, dtype=torch.float64)
    layer(f, torch.zeros_like(x), x)
    expected = residual_by_hand(stop, *pairs[-1])
    assert layer.report is not None
    assert layer.report.residual is not None
    assert layer.report.converged is not None
    torch.testing.assert_close(layer.report.residual, expected)
    assert bool(layer.report.converged) == bool(expected <= 1e-3)


@own
def test_a_state_that_is_near_by_one_rule_alone(gradient: Any) -> None:
    for stop, converged in (("relative", True), ("absolute", False), ("mixed", True)):
        report = solved(gradient, FixedPoint(tol=1e-2, stop=stop), 1e4).report
        assert report is not None
        assert report.converged is not None
        assert bool(report.converged[0]) is converged


@own
def test_a_tolerance_below_rounding_is_raised_to_it(gradient: Any) -> None:
    layer = Equilibrium(FixedPoint(tol=1e-30), with_budget(gradient, 120))
    layer(contraction, torch.zeros(2, 4), torch.ones(2, 4))
    assert layer.report is not None
    assert layer.report.counts() == {"converged": 2}


@pytest.mark.parametrize("size", [1e-4, 1.0])
@own
def test_without_a_layer_it_is_the_relative_residual_and_nothing_but_rest_converges(
    gradient: Any, size: float
) -> None:
    pairs: list[tuple[Tensor, Tensor]] = []

    def f(z: Tensor, x: Tensor) -> Tensor:
        pairs.append((z.detach(), contraction(z, x).detach()))
        return contraction(z, x)

    x = torch.tensor([[size], [0.0], [9e4]]).double().expand(3, 4)  # the second is at rest
    solution = Solution.unsolved(torch.zeros_like(x))
    gradient.attach(f, solution, torch.zeros_like(x), x)
    report = solution.report
    assert report.residual is not None
    torch.testing.assert_close(report.residual, residual_by_hand("relative", *pairs[-1]))
    assert report.counts() == {"converged": 1, "budget": 2}


@own
def test_what_is_not_finite_says_so(gradient: Any) -> None:
    layer = Equilibrium(FixedPoint(), gradient)
    layer(lambda z, x: z / z + x, torch.zeros(2, 4), torch.ones(2, 4))
    assert layer.report is not None
    assert layer.report.status is not None
    assert layer.report.status.tolist() == [Status.NON_FINITE] * 2


@pytest.mark.parametrize("mode", ["training", "no_grad"])
@stops
@own
def test_a_failure_raises_by_the_solver_s_rule(gradient: Any, stop: Any, mode: str) -> None:
    solver = FixedPoint(tol=1e-2, stop=stop)
    with torch.set_grad_enabled(mode == "training"):
        if stop == "absolute":
            with pytest.raises(NotConvergedError, match=r"1 of 2 samples.* 0\.01 in 12 evaluat"):
                solved(gradient, solver, 1e4, on_failure="raise")
        else:
            solved(gradient, solver, 1e4, on_failure="raise")
        solved(gradient, FixedPoint(tol=0), 1e4, on_failure="raise")


@pytest.mark.parametrize("budget", [1, 2, 5, 12])
@pytest.mark.parametrize("solver", [*SOLVERS, AdjointBroyden])
@pytest.mark.parametrize("name", [*ESTIMATORS, *(estimator.name for estimator in OWN)])
def test_a_budget_is_in_evaluations_of_f(name: str, solver: type[Solver], budget: int) -> None:
    estimators = {estimator.name: estimator for estimator in OWN}
    gradient = estimators[name] if name in estimators else ESTIMATORS[name]()
    problem, calls = SYSTEMS["dense"](), []

    def f(z: Tensor, x: Tensor) -> Tensor:
        calls.append(None)
        return torch.as_tensor(problem.f(z, x))

    layer = Equilibrium(solver(max_steps=budget, tol=0), with_budget(gradient, budget))
    with torch.no_grad():
        layer(f, problem.z0, problem.x)
    assert layer.report is not None
    assert layer.report.nfe == len(calls)
    # A step of the reversible iteration takes two evaluations, and it takes one step at least.
    assert len(calls) == (2 * max(budget // 2, 1) if name == "reversible" else budget)


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


@pytest.mark.parametrize("tol", [0.0, 1e-2])
def test_a_solver_with_graphs_of_its_own_leaves_the_last_one(tol: float) -> None:
    f, z0, x = dense(gain=0.6, dtype=torch.float64)
    z0, x = z0[:1], x[:1].requires_grad_()
    solver = AdjointBroyden(max_steps=7, tol=tol)
    watched, plain = Watched(f), Watched(f)
    layer = Equilibrium(solver, Exact())
    state = layer(watched, z0, x)
    assert layer.report is not None
    assert layer.report.nfe == len(watched.graphs) <= 7
    expected = attached(Exact(), solver, plain, x)
    assert torch.equal(gradient(state, x), gradient(expected, x))


def test_no_graph_is_built_where_no_gradient_is_wanted() -> None:
    f, z0, x = dense()
    watched = Watched(f)
    with torch.no_grad():
        Equilibrium(Anderson(max_steps=5, tol=0), Exact())(watched, z0, x)
    assert watched.graphs == [False] * 5


def test_processes_that_spend_equal_budgets_evaluate_equally_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    z0 = torch.zeros(2, 3)
    assert last_evaluation_origin(Exact(), Anderson(tol=0), z0) is not None
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    assert last_evaluation_origin(Exact(), Anderson(tol=0), z0) is None
    assert last_evaluation_origin(Exact(), Anderson(tol=1e-3), z0) is not None


def test_solvers_and_estimators_without_a_name_have_that_of_their_class() -> None:
    class Own(CotangentRule):
        def rule(self, solution: Solution) -> Rule:
            return lambda cotangent, graph: (cotangent, SolveReport(nfe=0))

    class Mine(FixedPoint):
        pass

    class New(Solver):
        def start(self, z0: Tensor, function: FlatFunction) -> Iteration:
            raise NotImplementedError

    assert Own().name == "Own"
    assert (Mine.name, New.name) == ("fixed_point", "New")
    weight = torch.tensor(0.5, requires_grad=True)
    layer = Equilibrium(FixedPoint(max_steps=60, tol=1e-9), Own())
    layer(lambda z: weight * z + 1.0, torch.zeros(1, 1)).sum().backward()
    assert weight.grad is not None
    assert float(weight.grad) == pytest.approx(2.0, abs=1e-4)  # c d f / d weight = z*
