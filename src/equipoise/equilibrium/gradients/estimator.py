"""The contract of gradient estimators: what each offers, where it starts, what several share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, distributed

from equipoise.equilibrium.backward_graph import Rule, attach_rule
from equipoise.equilibrium.flat_function import Origin, transformed
from equipoise.equilibrium.solution import Solution, SolveReport, Status, StoppingRule
from equipoise.equilibrium.solvers import Solver
from equipoise.equilibrium.state import Function, State, detached, parts


class GradientEstimator(Protocol):
    """Gives a solution, found without a graph, a gradient with respect to f's parameters and
    inputs.

    own_iteration: the estimator starts at z0 and runs its own iteration, in evaluation too; the
    layer then runs no solver and passes `Solution.unsolved(z0)`.
    """

    own_iteration: ClassVar[bool]

    @property
    def name(self) -> str:
        """The name of the estimator in configurations and logs."""
        ...

    def attach(self, f: Function, solution: Solution, z0: State, *inputs: Tensor) -> State:
        """A state with the values of `solution.z`, up to the steps that the estimator takes itself.

        The layer calls it only while gradients are enabled, but always for an `own_iteration`. Once
        a backward pass has reached the state, `solution.report.backward` holds its cost.
        """
        ...


class CotangentRule(ABC):
    """An estimator that gives a rule from the cotangent c to w, which stands for (I - J)^-T c.

    One graph of f, at the solution, serves every product of the rule and the final product with
    df/d(theta, x).
    """

    name: ClassVar[str]
    own_iteration: ClassVar[bool] = False
    origin = staticmethod(detached)

    def __init_subclass__(cls) -> None:
        """Name an estimator without a name of its own by its class."""
        if not hasattr(cls, "name"):
            cls.name = cls.__name__

    def attach(self, f: Function, solution: Solution, z0: State, *inputs: Tensor) -> State:
        """f(z*) whose backward applies the rule first."""
        return attach_rule(f, solution, inputs, self.rule(solution))

    @abstractmethod
    def rule(self, solution: Solution) -> Rule:
        """The function that maps the cotangent c to w at this solution."""


@runtime_checkable
class StartsAtSolution(Protocol):
    """An estimator that evaluates f at the solution first, by `Solution.evaluate`."""

    def origin(self, z: State) -> State:
        """Where that graph begins: at constants, or at leaves if it takes products with J^T."""
        ...


def last_evaluation_origin(
    estimator: GradientEstimator, solver: Solver, z0: State
) -> Origin | None:
    """Where the graph of a solve's last evaluation begins, if the estimator can start with it.

    With tol = 0, f may communicate with other processes (see `Equilibrium`), which all have to
    evaluate it equally often, so with several processes no graph is kept then. Nor is one kept with
    tol = 0 on an accelerator, where such a step never waits for the device, while a CUDA graph is
    captured, or by a solver with a `solve(f, z0, *inputs)` of its own.
    """
    if type(solver).solve is not Solver.solve:
        return None
    if not torch.is_grad_enabled() or not isinstance(estimator, StartsAtSolution):
        return None
    if solver.tol == 0 and (_on_accelerator(z0) or _several_processes()):
        return None
    return None if transformed() or _captured() else estimator.origin


def _on_accelerator(state: State) -> bool:
    return any(part.device.type != "cpu" for part in parts(state))


def _captured() -> bool:
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def _several_processes() -> bool:
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    return distributed.get_world_size() > 1


class OwnIteration(GradientEstimator, Protocol):
    """An estimator that starts at z0 and runs its own iteration."""

    def with_budget(self, evaluations: int) -> GradientEstimator:
        """The same with as many steps as fit into this many evaluations of f, but at least one."""
        ...


def with_budget(estimator: GradientEstimator, evaluations: int) -> GradientEstimator:
    """The estimator, whose own iteration, if it has one, spends at most this many evaluations.

    If it has none, the budget is the solver's `max_steps`.
    """
    if not estimator.own_iteration:
        return estimator
    return cast(OwnIteration, estimator).with_budget(evaluations)


def rule_of(solution: Solution) -> StoppingRule:
    """How the layer's solver judges an iterate; by default by the relative residual."""
    return solution.rule or StoppingRule("relative", 0.0, 0.0)


def report_iteration(
    report: SolveReport, rule: StoppingRule, z: Tensor, fz: Tensor, evaluations: int
) -> None:
    """Record where the iteration ended: z and f(z) (B, D) are those of its last evaluation."""
    z, fz = z.detach(), fz.detach()
    size = torch.linalg.vector_norm(fz, dim=1)
    residual = rule(torch.linalg.vector_norm(fz - z, dim=1), size)
    status = torch.full_like(residual, Status.BUDGET, dtype=torch.int8)
    status.masked_fill_(rule.reached(residual, size), int(Status.CONVERGED))
    report.status = status.masked_fill_(~torch.isfinite(residual), int(Status.NON_FINITE))
    report.residual = residual
    report.steps = torch.full_like(residual, evaluations, dtype=torch.long)
    report.nfe = evaluations


def report_products(state: State, report: SolveReport, products: int) -> None:
    """When the backward pass arrives at `state`, record the number of products with J^T it takes.

    For estimators whose backward is an explicit graph: they solve nothing, so there is no residual.
    """
    first = parts(state)[0]
    if not first.requires_grad:
        return

    def note(_: Tensor) -> None:
        report.backward = SolveReport(nfe=products)

    first.register_hook(note)
