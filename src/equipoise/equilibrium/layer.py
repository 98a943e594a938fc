"""The equilibrium layer: solve without a graph, attach a gradient, keep a report."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from equipoise.equilibrium.compiled import compiled
from equipoise.equilibrium.gradients import GradientEstimator
from equipoise.equilibrium.gradients.estimator import last_evaluation_origin
from equipoise.equilibrium.randomness import BudgetJitter, MixedStart, StartRule, recomputing
from equipoise.equilibrium.regularizers import Pending, Regularizer
from equipoise.equilibrium.solution import (
    NotConvergedError,
    Solution,
    SolveReport,
    Status,
    StoppingRule,
    resolution,
)
from equipoise.equilibrium.solvers import FixedPoint, Solver
from equipoise.equilibrium.state import Function, Layout, State, as_state

OnFailure = Literal["raise", "warn", "fallback"]


class Equilibrium(nn.Module):
    """z* = f(z*, *inputs) as a layer; solver and estimator can be replaced at any time.

    solver, gradient, eval_solver (for evaluation mode, None = solver) are plain attributes.
    on_failure: what to do when samples end without convergence. "raise" raises NotConvergedError;
    "warn" warns, once per layer; "fallback" solves diverged and non-finite samples anew by damped
    iteration and keeps the better result. With tol = 0 there is no such test. An estimator's own
    iteration always takes all its steps: the report judges it by `tol` and `stop` of the solver,
    and only "raise" acts on it. jitter: each solve in training is shortened by a random number of
    steps, 0 to jitter. regularizer: adds to the loss of a forward in training, through
    `pop_penalty` and `pop_states`. random_start: the fraction of samples started from noise in
    training (`mixed_start`). start: None, or a rule that replaces the model's start, in training
    and in evaluation. compiles_f: whether f runs as compiled code (`compiled`).

    Penalties and states of a forward are dropped by the next one (`Pending`), so the layer can be
    copied and pickled at any time. Inside activation checkpointing, a repeated evaluation draws the
    same numbers and adds no penalty.

    If a solve in training spent its budget and its last evaluation was at the solution, the
    gradient starts from that evaluation; finding out costs one host-device sync. On an accelerator
    a step with tol = 0 has no sync at all, and evaluates f once more instead.

    Ranks of a distributed run may stop at different evaluations: as long as f does not communicate
    with other ranks, no rank waits for another here. An f that does (synchronised batch norm,
    sharded parameters) needs tol = 0, so that all ranks spend the same budget.
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
        self.compiles_f = False
        self.report: SolveReport | None = None
        self._pending = Pending()
        self._warned = False

    def forward(
        self, f: Function, z0: State | list[Tensor], *inputs: Tensor
    ) -> State | list[Tensor]:
        """The equilibrium of f from z0, in z0's form and shape; `inputs` share the batch dimension.

        f gets a list as a tuple. Raises TypeError or ValueError for an invalid solver, estimator or
        state, and for an f whose result does not have z0's shapes or which writes into its input.
        """
        if not recomputing():
            self._pending.drop_stale()
        solver, estimator = checked_solver(self.active_solver), checked_estimator(self.gradient)
        solver = self._keeping_states(self._budgeted(solver))
        start = self._started(as_state(z0, "z0"))
        if self.compiles_f:
            f = compiled(f)
        if estimator.own_iteration:
            rule = StoppingRule(solver.stop, solver.tol, resolution(start, Layout.of(start)))
            solution = Solution.unsolved(start, rule)
            state = estimator.attach(f, solution, start, *inputs)
            self._raise_where_wanted(solution.report, solver)
        else:
            origin = last_evaluation_origin(estimator, solver, start)
            with torch.no_grad():
                if origin is None:
                    solution = solver.solve(f, start, *inputs)
                else:
                    solution = solver.solve(f, start, *inputs, origin=origin)
                solution = self._handled(solution, solver, f, start, inputs)
            state = solution.z
            if torch.is_grad_enabled():
                state = estimator.attach(f, solution, start, *inputs)
        self.report = solution.report
        if self._regularized:
            self._regularize(state, solution, f, start, inputs)
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
        """The regulariser's part of the loss, summed over the forwards since the last call.

        A forward whose state was freed before the next forward began does not count.
        """
        return self._pending.pop_penalty()

    def pop_states(self) -> tuple[State, ...]:
        """Earlier states of the latest forward's solve, each with a gradient, for a correction."""
        return self._pending.pop_states()

    @property
    def active_solver(self) -> Solver:
        """The solver of the present mode, training or evaluation."""
        return self.solver if self.training or self.eval_solver is None else self.eval_solver

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
        """Apply `on_failure`; costs one host-device sync, and none after the first warning."""
        warned = self.on_failure == "warn" and self._warned
        if warned or solver.tol == 0 or bool(solution.converged.all()):
            return solution
        if self.on_failure == "fallback":
            return with_fallback(solution, solver, f, z0, inputs)
        self._raise_where_wanted(solution.report, solver)
        message = solution.report.failure(solver.tol)
        warnings.warn(f"{message}; shown once per layer", stacklevel=5)
        self._warned = True
        return solution

    def _raise_where_wanted(self, report: SolveReport, solver: Solver) -> None:
        """Raise NotConvergedError where the policy says so, at a host-device sync only there."""
        if self.on_failure != "raise" or solver.tol == 0 or report.converged is None:
            return
        if not bool(report.converged.all()):
            raise NotConvergedError(report.failure(solver.tol))


def equilibrium_layers(module: nn.Module) -> dict[str, Equilibrium]:
    """Every `Equilibrium` layer inside `module`, by its dotted name and in its order."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, Equilibrium)}


def attach_states(
    estimator: GradientEstimator, f: Function, solution: Solution, z0: State, *inputs: Tensor
) -> tuple[State, ...]:
    """The states that the solver has kept, each with a gradient, for a loss along the trajectory.

    `estimator` must be one that needs no fixed point: jfb or phantom. Raises ValueError for an
    estimator with its own iteration, which keeps no states.
    """
    if estimator.own_iteration:
        raise ValueError(f"{estimator.name} keeps no states of a solve; use jfb or phantom")
    return tuple(
        estimator.attach(f, replace(solution, z=state), z0, *inputs) for state in solution.states
    )


def with_fallback(
    solution: Solution, solver: Solver, f: Function, z0: State, inputs: tuple[Tensor, ...]
) -> Solution:
    """For diverged and non-finite samples, the damped iteration's result if it is better."""
    damped = FixedPoint(
        damping=0.5, max_steps=solver.max_steps, tol=solver.tol, stop=solver.stop,
        check_every=solver.check_every, dtype=solver.dtype,
    ).solve(f, z0, *inputs)  # fmt: skip
    broken = (solution.status == Status.DIVERGED) | (solution.status == Status.NON_FINITE)
    better = broken & (damped.residual < solution.residual)
    layout = Layout.of(solution.z)
    z = torch.where(better.unsqueeze(1), layout.flatten(damped.z), layout.flatten(solution.z))
    merged = replace(
        solution,
        z=layout.restore(z),
        residual=torch.where(better, damped.residual, solution.residual),
        steps=torch.where(better, damped.steps, solution.steps),
        status=torch.where(better, damped.status, solution.status),
        nfe=solution.nfe + damped.nfe,
        sample_evaluations=_sum(solution.sample_evaluations, damped.sample_evaluations),
    )
    merged.report.fallback = better
    return merged


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def checked_solver(value: Solver, role: str = "solver") -> Solver:
    """The solver; raises TypeError for anything else, such as the name of one."""
    if isinstance(value, Solver):
        return value
    raise TypeError(f"{role} must be a solver such as Anderson() or Broyden(), {_got(value)}")


def checked_estimator(value: GradientEstimator) -> GradientEstimator:
    """The estimator; raises TypeError for anything else, such as the name of one."""
    if not isinstance(value, type) and hasattr(value, "attach") and hasattr(value, "own_iteration"):
        return value
    raise TypeError(f"gradient must be an estimator such as Exact() or Phantom(), {_got(value)}")


def _got(value: object) -> str:
    if isinstance(value, str):
        return f"not the string {value!r}"
    if isinstance(value, type):
        return f"not the class {value.__name__}: write {value.__name__}()"
    return f"not {'None' if value is None else f'a value of type {type(value).__name__}'}"
