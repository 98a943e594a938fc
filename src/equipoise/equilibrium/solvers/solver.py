"""What all forward solvers share: the settings, and the loop around one method's update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from equipoise.equilibrium.solution import Solution
from equipoise.equilibrium.solvers.compaction import Compaction, check_rows
from equipoise.equilibrium.solvers.coupled_search import CoupledSearch
from equipoise.equilibrium.solvers.flat_function import FlatFunction
from equipoise.equilibrium.solvers.inverse import LowRankInverse
from equipoise.equilibrium.solvers.search import Search
from equipoise.equilibrium.solvers.stopping import Stop, StoppingRule, resolution
from equipoise.equilibrium.solvers.trajectory import Trajectory
from equipoise.equilibrium.state import Function, Layout, State

Precision = Literal["float32", "float64"]


class Iteration(ABC):
    """One method's memory during one solve; everything in it is a matrix with a row per sample."""

    @abstractmethod
    def advance(self, z: Tensor, fz: Tensor, g: Tensor, frozen: Tensor | None) -> Tensor:
        """The next iterate from z, f(z) and g = f(z) - z, each (B, D).

        They belong to the solve: none is written into, and g is overwritten by the next evaluation.
        frozen (B,) bool tells the samples that have ended; None where none has. What is returned
        for them does not matter, but an inverse that the method offers keeps theirs as it is.
        """

    def room(self, spare: Tensor) -> Tensor:
        """Where the solve shall write the next g (B, D): a method that keeps g spares a copy."""
        return spare

    @abstractmethod
    def narrow(self, rows: Tensor) -> None:
        """Remember only these rows (b,) of all that is kept: the other samples are not evaluated.

        It comes between `advance` and the evaluation of what that has returned.
        """

    def inverse(self) -> LowRankInverse | None:
        """The estimate of (J_f - I)^-1 that the method has built, if it builds one."""
        return None


class _Finished(Iteration):
    """What is left of a method that takes no further step, once its memory is free."""

    def __init__(self, inverse: LowRankInverse | None) -> None:
        self.estimate = inverse

    def advance(self, z: Tensor, fz: Tensor, g: Tensor, frozen: Tensor | None) -> Tensor:
        raise RuntimeError("the budget is spent")

    def narrow(self, rows: Tensor) -> None:
        raise RuntimeError("the budget is spent")

    def inverse(self) -> LowRankInverse | None:
        return self.estimate


@dataclass(frozen=True, kw_only=True)
class Solver(ABC):
    """Finds z with z = f(z, *inputs); a record of settings without state of its own.

    max_steps: evaluations of f at most. tol: residual at which a sample is done; 0 spends the whole
    budget. stop: how the residual is measured (`StoppingRule`). check_every: the host reads the
    device at most once in so many evaluations, and samples are frozen only then. patience: a sample
    whose best residual is so many evaluations old has stagnated. trace: keep every residual.
    keep_states: evaluations, counted from 1 and increasing, whose iterate is kept in
    `Solution.states`. compact_at: once so large a part of the rows that f sees has ended, f sees
    the others only, which needs an f that treats each row by itself and gets all that has a row a
    sample in `inputs`; an f without inputs always sees all rows. None: all rows, always. dtype: of
    the state and all algebra on it; None is the state's own, float32 at least.
    """

    name: ClassVar[str]

    max_steps: int = 30
    tol: float = 1e-3
    stop: Stop = "relative"
    check_every: int = 1
    patience: int = 30
    trace: bool = False
    keep_states: tuple[int, ...] = ()
    compact_at: float | None = None
    dtype: Precision | None = None

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.check_every < 1 or self.patience < 1:
            raise ValueError("max_steps, check_every and patience must be at least 1")
        if not self.tol >= 0:
            raise ValueError("tol must be 0 (the whole budget) or positive")
        if self.stop not in ("relative", "absolute", "mixed"):
            raise ValueError(f"stop must be relative, absolute or mixed, not {self.stop!r}")
        if self.compact_at is not None and not 0 < self.compact_at <= 1:
            raise ValueError(f"compact_at must lie in (0, 1], or be None, got {self.compact_at}")
        chosen = tuple(self.keep_states)
        if any(step < 1 for step in chosen) or list(chosen) != sorted(set(chosen)):
            raise ValueError(f"keep_states must increase from 1 or more, got {chosen}")
        object.__setattr__(self, "keep_states", chosen)  # a configuration gives a list

    @abstractmethod
    def start(self, z0: Tensor, function: FlatFunction) -> Iteration:
        """The method's memory at the start of a solve from z0 (B, D)."""

    @torch.no_grad()
    def solve(
        self, f: Function, z0: State, *inputs: Tensor, coupled_units: Tensor | None = None
    ) -> Solution:
        """Iterate from z0 until every sample has ended or the budget is spent.

        f(z, *inputs) -> state of z's shape, evaluated as it is, under the caller's autocast. No
        graph is kept: gradients are the estimators' business. coupled_units (B,): for an f whose
        samples depend on each other (`CoupledSearch`), what a residual of 1 means for each of them.
        """
        layout = Layout.of(z0, getattr(torch, self.dtype) if self.dtype else None)
        function = FlatFunction(f, layout, inputs, resolution(z0, layout))
        z = layout.flatten(z0)
        search = self._search(z, function.resolution, coupled_units)
        trajectory = Trajectory(self.keep_states)
        iteration = self.start(z, function)
        compaction = self._compaction(layout, inputs if coupled_units is None else ())
        spare = torch.empty_like(z)
        checked = 0
        while True:
            fz = function(z)
            g = torch.sub(fz, z, out=iteration.room(spare))
            spent = function.evaluations
            search.observe(z, fz, g, spent)
            if trajectory.due(spent):
                trajectory.keep(spent, compaction.whole_state(search, search.usable(z)))
            if spent >= self.max_steps:
                break
            if self.tol > 0 and spent - checked >= self.check_every:
                checked = spent
                if search.check():
                    break
            z = iteration.advance(z, fz, g, search.frozen)
            del fz  # or f would get other memory at each evaluation, which is in no cache
            if search.frozen is not None and compaction.due(search):
                staying = compaction.drop(search, iteration)
                function.narrow(staying)
                z = z[staying]
                spare = torch.empty_like(z)
            if function.evaluations + 1 >= self.max_steps:
                # Mostly that of the solution, which may keep its graph (gradients/last_evaluation).
                z = search.with_results(z)
                iteration = _Finished(iteration.inverse())
        search.finish()
        outcome = compaction.whole(search)
        return Solution(
            z=layout.restore(outcome.z),
            residual=outcome.residual,
            steps=outcome.steps,
            status=outcome.status,
            nfe=function.evaluations,
            products=function.products,
            trace=torch.stack(search.trace) if search.trace is not None else None,
            states=tuple(layout.restore(state) for state in trajectory.finish(outcome.z)),
            inverse=compaction.whole_inverse(search, iteration.inverse()),
        )

    def _search(self, z: Tensor, resolution: float, coupled_units: Tensor | None) -> Search:
        if coupled_units is None:
            rule = StoppingRule(self.stop, self.tol, resolution)
            return Search(z, rule, self.patience, self.trace)
        rule = StoppingRule(self.stop, self.tol, resolution, coupled_units.to(z.dtype))
        return CoupledSearch(z, rule, self.patience, self.trace)

    def _compaction(self, layout: Layout, inputs: tuple[Tensor, ...]) -> Compaction:
        """By `compact_at`; a share that is never reached where nothing is to be dropped."""
        if self.compact_at is None or not inputs:
            return Compaction(torch.inf, layout.batch)
        check_rows(layout, inputs)
        return Compaction(self.compact_at, layout.batch)
