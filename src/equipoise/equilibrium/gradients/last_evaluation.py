"""The last evaluation of a solve, kept with its graph so that the gradient need not repeat it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import distributed

from equipoise.equilibrium.function import evaluate
from equipoise.equilibrium.gradients.estimator import GradientEstimator, constant
from equipoise.equilibrium.gradients.functional_cotangent import transformed
from equipoise.equilibrium.solution import Evaluation, Origin
from equipoise.equilibrium.solvers import Solver
from equipoise.equilibrium.state import Function, State, parts


@runtime_checkable
class StartsAtSolution(Protocol):
    """An estimator that evaluates f at the solution first, by `Solution.evaluate`."""

    def origin(self, z: State) -> State:
        """Where that graph begins: at constants, or at leaves if it takes products with J^T."""
        ...


class LastEvaluation:
    """f for a solve without graphs, which keeps the graph of evaluation number `budget`.

    A solve that spends its budget mostly ends at its best iterate, which the estimator would
    evaluate once more. Where it does not, the graph is dropped.
    """

    def __init__(self, f: Function, budget: int, origin: Origin) -> None:
        self.f = f
        self.budget = budget
        self.origin = origin
        self.count = 0
        self.kept: Evaluation | None = None

    def __call__(self, z: State, *inputs: torch.Tensor) -> State:
        """f(z, *inputs); a solver that asks for graphs of its own gets them."""
        self.count += 1
        if self.count != self.budget or torch.is_grad_enabled():
            return self.f(z, *inputs)
        with torch.enable_grad():
            origin = self.origin(z)
            value = evaluate(self.f, origin, *inputs)
        self.kept = Evaluation(origin, value)
        return constant(value)

    def take(self, z: State) -> Evaluation | None:
        """What was kept, if it belongs to exactly this z; reads the device if anything was kept."""
        kept, self.kept = self.kept, None
        if kept is None:
            return None
        pairs = zip(parts(kept.z), parts(z), strict=True)
        return kept if all(torch.equal(a, b) for a, b in pairs) else None


def last_evaluation(
    f: Function, solver: Solver, estimator: GradientEstimator
) -> LastEvaluation | None:
    """f, keeping the last evaluation of the solver's budget, where the estimator can use it.

    With tol = 0 f may talk to other processes (see `Equilibrium`), which then all have to evaluate
    it equally often, whatever each of them finds; so among several nothing is kept there. Nor is it
    while a CUDA graph is captured, where the device can't be read.
    """
    if not torch.is_grad_enabled() or transformed() or _captured():
        return None
    if not isinstance(estimator, StartsAtSolution) or (solver.tol == 0 and _several_processes()):
        return None
    return LastEvaluation(f, solver.max_steps, estimator.origin)


def _captured() -> bool:
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def _several_processes() -> bool:
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    return distributed.get_world_size() > 1
