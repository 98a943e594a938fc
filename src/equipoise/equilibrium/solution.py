"""What a solve returns: the solution, and a report that can be kept after the state is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equipoise.equilibrium.function import evaluate
from equipoise.equilibrium.state import Function, State, parts

if TYPE_CHECKING:
    from equipoise.equilibrium.solvers.inverse import LowRankInverse
    from equipoise.equilibrium.solvers.stopping import StoppingRule


class Status(IntEnum):
    """How the solve of one sample ended."""

    CONVERGED = 0
    BUDGET = 1
    STAGNATED = 2
    DIVERGED = 3
    NON_FINITE = 4


class NotConvergedError(RuntimeError):
    """A solve failed and the layer was told to raise."""


@dataclass
class SolveReport:
    """Per-sample outcome of a solve, without the state. `backward` is the same for the adjoint.

    residual (B,) · steps (B,) evaluation at which the returned iterate was met · status (B,) codes
    of `Status` · nfe evaluations of f spent on the batch · trace (nfe, B) or None · fallback (B,)
    where an estimator fell back to a cheaper gradient, or None. An estimator that solves nothing
    backward leaves residual, steps and status of its backward report None. products: with the
    transposed Jacobian of f, which adjoint Broyden spends beside the evaluations.
    """

    nfe: int
    residual: Tensor | None = None
    steps: Tensor | None = None
    status: Tensor | None = None
    trace: Tensor | None = None
    fallback: Tensor | None = None
    backward: SolveReport | None = None
    products: int = 0

    @property
    def converged(self) -> Tensor | None:
        """(B,) bool: the tolerance was met; None where nothing was solved."""
        return None if self.status is None else self.status == Status.CONVERGED

    def counts(self) -> dict[str, int]:
        """How many samples ended with each status; reads the device once."""
        if self.status is None:
            return {}
        numbers = torch.bincount(self.status.long(), minlength=len(Status)).tolist()
        return {status.name.lower(): numbers[status] for status in Status if numbers[status]}


Origin = Callable[[State], State]
"""Of a state, the tensors at which a graph begins: constants, or leaves that require gradients."""


@dataclass(frozen=True)
class Evaluation:
    """z and f(z), with a graph from the one to the other."""

    z: State
    fz: State


@dataclass
class Solution:
    """The result of `Solver.solve`; its fields are described by `SolveReport`.

    z is, per sample, the iterate of lowest residual; `states` are the iterates of the evaluations
    chosen by `keep_states`; `inverse` is the quasi-Newton estimate of (J_f - I)^-1 where the solver
    kept one. evaluation: that of f at z, where it was made with a graph, for one estimator to use.
    rule: how an estimator that brings its own iteration is to judge where that has ended.
    """

    z: State
    residual: Tensor
    steps: Tensor
    status: Tensor
    nfe: int
    trace: Tensor | None = None
    inverse: LowRankInverse | None = None
    states: tuple[State, ...] = ()
    products: int = 0
    evaluation: Evaluation | None = None
    rule: StoppingRule | None = None
    report: SolveReport = field(init=False)

    def __post_init__(self) -> None:
        self.report = SolveReport(
            nfe=self.nfe,
            residual=self.residual,
            steps=self.steps,
            status=self.status,
            trace=self.trace,
            products=self.products,
        )

    @property
    def converged(self) -> Tensor:
        """(B,) bool."""
        return self.status == Status.CONVERGED

    def evaluate(self, f: Function, origin: Origin, *inputs: Tensor) -> Evaluation:
        """f at the solution with a graph from origin(z): the solve's own, once, or a new one."""
        kept, self.evaluation = self.evaluation, None
        if kept is not None:
            return kept
        z = origin(self.z)
        return Evaluation(z, evaluate(f, z, *inputs))

    @classmethod
    def unsolved(cls, z0: State, rule: StoppingRule | None = None) -> Solution:
        """The solution before any evaluation, for estimators that bring their own iteration."""
        first = parts(z0)[0]
        batch, device = first.shape[0], first.device
        return cls(
            z=z0,
            residual=torch.full((batch,), torch.inf, device=device),
            steps=torch.zeros(batch, dtype=torch.long, device=device),
            status=torch.full((batch,), Status.BUDGET, dtype=torch.int8, device=device),
            nfe=0,
            rule=rule,
        )
