"""The equilibrium layer: solve without a graph, attach a gradient, keep a report."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from equipoise.equilibrium.budget_jitter import BudgetJitter
from equipoise.equilibrium.failure import classify, describe_failure, with_fallback
from equipoise.equilibrium.gradients import GradientEstimator
from equipoise.equilibrium.gradients.last_evaluation import last_evaluation
from equipoise.equilibrium.initial import MixedStart, StartRule
from equipoise.equilibrium.regularizers import Regularizer, attach_states
from equipoise.equilibrium.solution import NotConvergedError, Solution, SolveReport
from equipoise.equilibrium.solvers import Solver
from equipoise.equilibrium.state import Function, State

OnFailure = Literal["raise", "warn", "fallback"]


class Equilibrium(nn.Module):
    """z* = f(z*, *inputs) as a layer; solver and estimator can be replaced at any time.

    solver, gradient, eval_solver (for evaluation mode, None = solver) are plain attributes.
    on_failure: what to do when samples end without convergence. "raise" raises NotConvergedError;
    "warn" warns, once a layer; "fallback" solves diverged and non-finite samples anew by damped
    iteration and keeps the better result. With tol = 0 there is no such test. jitter: each solve in
    training gives up a random number of steps, 0 to jitter. regularizer: what a forward in training
    leaves for the loss, in `pop_penalty` and `pop_states`. random_start: the part of the samples
    that start from noise in training (`mixed_start`). start: None, or a rule that replaces the
    start that the model gives, in training and in evaluation.

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
        self.solver = solver
        self.gradient = gradient
        self.eval_solver = eval_solver
        self.on_failure = on_failure
        self.jitter = BudgetJitter(jitter) if jitter else None
        self.regularizer = regularizer
        self.random_start = MixedStart(random_start) if random_start else None
        self.start: StartRule | None = None
        self.penalty: Tensor | None = None
        self.states: tuple[State, ...] = ()
        self.report: SolveReport | None = None
        self._warned = False

    def forward(self, f: Function, z0: State, *inputs: Tensor) -> State:
        """The equilibrium of f from z0, in z0's shape; `inputs` share the batch dimension."""
        solver = self._keeping_states(self._budgeted(self.active_solver))
        z0 = self._started(z0)
        if self.gradient.own_iteration:
            solution = Solution.unsolved(z0)
            state = self.gradient.attach(f, solution, z0, *inputs)
            classify(solution.report, solver)
        else:
            solution = self._solve(solver, f, z0, inputs)
            state = self.gradient.attach(f, solution, z0, *inputs)
        self.report = solution.report
        if self._regularized:
            self._regularize(state, solution, f, z0, inputs)
        return state

    def pop_penalty(self) -> Tensor | None:
        """The regulariser's part of the loss, summed over the forwards since it was last taken."""
        penalty, self.penalty = self.penalty, None
        return penalty

    def pop_states(self) -> tuple[State, ...]:
        """Earlier states of the latest forward's solve, each with a gradient, for a correction."""
        states, self.states = self.states, ()
        return states

    @property
    def active_solver(self) -> Solver:
        """The solver of the present mode, training or evaluation."""
        return self.solver if self.training or self.eval_solver is None else self.eval_solver

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
            return self.start(z0)
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
        if penalty is not None:
            self.penalty = penalty if self.penalty is None else self.penalty + penalty
        self.states = ()
        if solution.states:
            self.states = attach_states(self.gradient, f, solution, z0, *inputs)

    def _handled(
        self, solution: Solution, solver: Solver, f: Function, z0: State, inputs: tuple[Tensor, ...]
    ) -> Solution:
        """Apply `on_failure`; reads the device once, and not at all after the first warning."""
        settled = self.on_failure == "warn" and self._warned
        if settled or solver.tol == 0 or bool(solution.converged.all()):
            return solution
        if self.on_failure == "fallback":
            return with_fallback(solution, solver, f, z0, inputs)
        message = describe_failure(solution.report, solver)
        if self.on_failure == "raise":
            raise NotConvergedError(message)
        warnings.warn(f"{message}; this warning comes once a layer", stacklevel=4)
        self._warned = True
        return solution
