"""The equilibrium layer: solve without a graph, attach a gradient, keep a report."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from equipoise.equilibrium.budget_jitter import BudgetJitter
from equipoise.equilibrium.choices import checked_estimator, checked_solver
from equipoise.equilibrium.draws import recomputing
from equipoise.equilibrium.failure import describe_failure, with_fallback
from equipoise.equilibrium.gradients import GradientEstimator
from equipoise.equilibrium.gradients.last_evaluation import last_evaluation
from equipoise.equilibrium.initial import MixedStart, StartRule
from equipoise.equilibrium.pending import Pending
from equipoise.equilibrium.regularizers import Regularizer, attach_states
from equipoise.equilibrium.solution import NotConvergedError, Solution, SolveReport
from equipoise.equilibrium.solvers import Solver
from equipoise.equilibrium.solvers.stopping import StoppingRule, resolution
from equipoise.equilibrium.state import Function, Layout, State, as_state

OnFailure = Literal["raise", "warn", "fallback"]


class Equilibrium(nn.Module):
    """z* = f(z*, *inputs) as a layer; solver and estimator can be replaced at any time.

    solver, gradient, eval_solver (for evaluation mode, None = solver) are plain attributes.
    on_failure: what to do when samples end without convergence. "raise" raises NotConvergedError;
    "warn" warns, once a layer; "fallback" solves diverged and non-finite samples anew by damped
    iteration and keeps the better result. With tol = 0 there is no such test. An estimator's own
    iteration takes the steps that it was told to take: it is judged by `tol` and `stop` of the
    solver in the report, and only "raise" acts on it. jitter: each solve in
    training gives up a random number of steps, 0 to jitter. regularizer: what a forward in training
    leaves for the loss, in `pop_penalty` and `pop_states`. random_start: the part of the samples
    that start from noise in training (`mixed_start`). start: None, or a rule that replaces the
    start that the model gives, in training and in evaluation.

    What a forward leaves goes with the next one (`Pending`), so the layer can be copied and pickled
    at any time. Inside activation checkpointing what is evaluated again draws the same numbers and
    leaves nothing.

    Where a solve in training has spent its budget, the gradient begins with its last evaluation if
    that is the solution's; finding that out reads the device once (`last_evaluation`).

    Ranks of a distributed run may stop at different evaluations: as long as f talks to no other
    rank, no rank waits for another in here. An f that does (synchronised batch norm, sharded
    parameters) needs tol = 0, so that all ranks spend the same budget.
    """

    def __init__(
        self,
        solver: Solver,
        gradient: GradientEstimator,
        eval_solver: Solver | None = None,
        on_failure: OnFailure = "warn",
        jitter: int = 0,
        regularizer: Regularizer | None = None,
        random_start: float = 0.0,
    ) -> None:
        super().__init__()
        if on_failure not in ("raise", "warn", "fallback"):
            raise ValueError(f"on_failure must be raise, warn or fallback, not {on_failure!r}")
        self.solver = checked_solver(solver)
        self.gradient = checked_estimator(gradient)
        if eval_solver is not None:
            checked_solver(eval_solver, "eval_solver")
        self.eval_solver = eval_solver
        self.on_failure = on_failure
        self.jitter = BudgetJitter(jitter) if jitter else None
        self.regularizer = regularizer
        self.random_start = MixedStart(random_start) if random_start else None
        self.start: StartRule | None = None
        self.report: SolveReport | None = None
        self._pending = Pending()
        self._warned = False

    def forward(
        self, f: Function, z0: State | list[Tensor], *inputs: Tensor
    ) -> State | list[Tensor]:
        """The equilibrium of f from z0, in z0's form and shape; `inputs` share the batch dimension.

        f gets a list as a tuple. Raises TypeError and ValueError for what is no solver, estimator
        or state, and for an f that returns no state of z0's shapes or writes into the one it gets.
        """
        if not recomputing():
            self._pending.drop_what_is_over()
        checked_solver(self.active_solver)
        checked_estimator(self.gradient)
        state = self._equilibrium(f, as_state(z0, "z0"), inputs)
        return list(state) if isinstance(z0, list) else state

    def extra_repr(self) -> str:
        """Solver, estimator and what is not the default."""
        shown = [f"solver={self.solver!r}", f"gradient={self.gradient!r}"]
        if self.eval_solver is not None:
            shown.append(f"eval_solver={self.eval_solver!r}")
        if self.on_failure != "warn":
            shown.append(f"on_failure={self.on_failure!r}")
        return ",\n".join(shown)

    @property
    def penalty(self) -> Tensor | None:
        """What `pop_penalty` would give."""
        return self._pending.penalty

    def pop_penalty(self) -> Tensor | None:
        """The regulariser's part of the loss, summed over the forwards since it was last taken.

        A forward whose state is gone before the next one begins no longer counts.
        """
        return self._pending.pop_penalty()

    def pop_states(self) -> tuple[State, ...]:
        """Earlier states of the latest forward's solve, each with a gradient, for a correction."""
        return self._pending.pop_states()

    @property
    def active_solver(self) -> Solver:
        """The solver of the present mode, training or evaluation."""
        return self.solver if self.training or self.eval_solver is None else self.eval_solver

    def _equilibrium(self, f: Function, z0: State, inputs: tuple[Tensor, ...]) -> State:
        """The solution with its gradient, and what else a forward leaves."""
        solver = self._keeping_states(self._budgeted(self.active_solver))
        z0 = self._started(z0)
        if self.gradient.own_iteration:
            rule = StoppingRule(solver.stop, solver.tol, resolution(z0, Layout.of(z0)))
            solution = Solution.unsolved(z0, rule)
            state = self.gradient.attach(f, solution, z0, *inputs)
            self._raise_where_wanted(solution.report, solver)
        else:
            solution = self._solve(solver, f, z0, inputs)
            state = self.gradient.attach(f, solution, z0, *inputs)
        self.report = solution.report
        if self._regularized:
            self._regularize(state, solution, f, z0, inputs)
        return state

    def _solve(
        self, solver: Solver, f: Function, z0: State, inputs: tuple[Tensor, ...]
    ) -> Solution:
        """The solution, with the evaluation that the solve leaves to the estimator."""
        last = last_evaluation(f, solver, self.gradient)
        with torch.no_grad():
            solution = solver.solve(last or f, z0, *inputs)
            solution = self._handled(solution, solver, f, z0, inputs)
        solution.evaluation = None if last is None else last.take(solution.z)
        return solution

    def _started(self, z0: State) -> State:
        """Where the solve starts."""
        if self.start is not None:
            return as_state(self.start(z0), "the start of a solve")
        if self.random_start is None:
            return z0
        started: State = self.random_start(z0)
        return started

    def _budgeted(self, solver: Solver) -> Solver:
        """The solver with what the jitter leaves of its budget."""
        if self.jitter is None or not self.training:
            return solver
        return replace(solver, max_steps=max(solver.max_steps - self.jitter.draw(), 1))

    @property
    def _regularized(self) -> bool:
        return self.regularizer is not None and self.training and torch.is_grad_enabled()

    def _keeping_states(self, solver: Solver) -> Solver:
        """The solver, told to keep the states whose losses the regulariser wants."""
        if self.regularizer is None or not self._regularized or self.gradient.own_iteration:
            return solver
        kept = self.regularizer.kept_evaluations(solver.max_steps)
        return replace(solver, keep_states=kept) if kept else solver

    def _regularize(
        self, state: State, solution: Solution, f: Function, z0: State, inputs: tuple[Tensor, ...]
    ) -> None:
        assert self.regularizer is not None
        penalty = self.regularizer.penalty(f, state, *inputs)
        states: tuple[State, ...] = ()
        if solution.states:
            states = attach_states(self.gradient, f, solution, z0, *inputs)
        if recomputing():
            return
        self._pending.states = states
        if penalty is not None:
            self._pending.add(penalty, state)

    def _handled(
        self, solution: Solution, solver: Solver, f: Function, z0: State, inputs: tuple[Tensor, ...]
    ) -> Solution:
        """Apply `on_failure`; reads the device once, and not at all after the first warning."""
        settled = self.on_failure == "warn" and self._warned
        if settled or solver.tol == 0 or bool(solution.converged.all()):
            return solution
        if self.on_failure == "fallback":
            return with_fallback(solution, solver, f, z0, inputs)
        self._raise_where_wanted(solution.report, solver)
        message = describe_failure(solution.report, solver)
        warnings.warn(f"{message}; this warning comes once a layer", stacklevel=5)
        self._warned = True
        return solution

    def _raise_where_wanted(self, report: SolveReport, solver: Solver) -> None:
        """Raise NotConvergedError where the policy says so; reads the device only there."""
        if self.on_failure != "raise" or solver.tol == 0 or report.converged is None:
            return
        if not bool(report.converged.all()):
            raise NotConvergedError(describe_failure(report, solver))
