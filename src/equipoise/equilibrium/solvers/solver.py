"""What all forward solvers share: the settings, and the loop around one method's update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from equipoise.equilibrium.compaction import Compaction, check_rows
from equipoise.equilibrium.flat_function import FlatFunction, Origin
from equipoise.equilibrium.freed_memory import keep_freed_memory
from equipoise.equilibrium.iteration import Iteration
from equipoise.equilibrium.processes import ended_everywhere, exchanges
from equipoise.equilibrium.search import CoupledSearch, Search, Trajectory
from equipoise.equilibrium.solution import Solution, Stop, StoppingRule, resolution
from equipoise.equilibrium.state import Function, Layout, State

Precision = Literal["float32", "float64"]


@dataclass(frozen=True, kw_only=True)
class Solver(ABC):
    """Finds z with z = f(z, *inputs); a record of settings without state of its own.

    max_steps: evaluations of f at most. tol: residual at which a sample is done; 0 spends the whole
    budget. stop: how the residual is measured (`StoppingRule`). check_every: evaluations between
    two host-device syncs, at which samples are frozen. patience: evaluations without improvement
    before a sample counts as stagnated. trace: keep every residual. keep_states: evaluations,
    counted from 1 and increasing, whose iterate is kept in `Solution.states`. compact_at: drop
    finished samples from the batch once this fraction of its rows is done, which needs an f that
    treats rows independently and gets everything that has a row per sample through `inputs`; an f
    without inputs always sees all rows. None: never. dtype: precision of the state and all algebra
    on it; None: the state's own, but at least float32.
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

    def __init_subclass__(cls) -> None:
        """Name a method without a name of its own by its class."""
        if not hasattr(cls, "name"):
            cls.name = cls.__name__

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.check_every < 1 or self.patience < 1:
            raise ValueError("max_steps, check_every and patience must be at least 1")
        if not self.tol >= 0:
            raise ValueError("tol must be 0 (the whole budget) or positive")
        if self.stop not in ("relative", "absolute", "mixed"):
            raise ValueError(f"stop must be relative, absolute or mixed, not {self.stop!r}")
        if self.compact_at is not None and not 0 < self.compact_at <= 1:
            raise ValueError(f"compact_at must lie in (0, 1], or be None, got {self.compact_at}")
        steps = tuple(self.keep_states)
        if any(step < 1 for step in steps) or list(steps) != sorted(set(steps)):
            raise ValueError(f"keep_states must increase from 1 or more, got {steps}")
        object.__setattr__(self, "keep_states", steps)  # a configuration gives a list

    @abstractmethod
    def start(self, z0: Tensor, function: FlatFunction) -> Iteration:
        """The method's memory at the start of a solve from z0 (B, D)."""

    @torch.no_grad()
    def solve(
        self,
        f: Function,
        z0: State,
        *inputs: Tensor,
        coupled_units: Tensor | None = None,
        origin: Origin | None = None,
    ) -> Solution:
        """Iterate from z0 until every sample has ended or the budget is spent.

        If f communicates with other processes, their samples must have ended too. f(z, *inputs)
        returns a state of z's shape and runs under the caller's autocast. Gradients are the
        estimators' task: no graph is kept, except, if `origin` says where it begins, that of the
        last evaluation of a spent budget (`Solution.evaluation`). coupled_units (B,): for an f
        whose samples depend on each other (`CoupledSearch`), what a residual of 1 means for each
        sample.
        """
        return self._solve(f, z0, inputs, coupled_units, origin)

    def _solve(
        self,
        f: Function,
        z0: State,
        inputs: tuple[Tensor, ...],
        coupled_units: Tensor | None,
        origin: Origin | None,
    ) -> Solution:
        layout = Layout.of(z0, getattr(torch, self.dtype) if self.dtype else None)
        if layout.device.type == "cpu":
            keep_freed_memory()
        function = FlatFunction(f, layout, inputs, resolution(z0, layout))
        z = layout.flatten(z0)
        search = self._search(z, function.resolution, coupled_units)
        trajectory = Trajectory(self.keep_states)
        iteration = self.start(z, function)
        compaction = self._compaction(layout, inputs if coupled_units is None else ())
        buffer = torch.empty_like(z)
        checked, alone = 0, exchanges()
        while function.evaluations < self.max_steps - 1:
            fz = function(z)
            g = torch.sub(fz, z, out=iteration.residual_buffer(buffer))
            spent = function.evaluations
            search.observe(z, fz, g, spent)
            if trajectory.due(spent):
                trajectory.keep(spent, compaction.whole_state(search, search.usable(z)))
            if self.tol > 0 and spent - checked >= self.check_every:
                checked = spent
                if self._may_stop(search, exchanges() > alone):
                    iteration.conclude(z, g)
                    inverse = iteration.inverse()
                    break
            z = iteration.advance(z, fz, g, search.frozen)
            del fz, g  # so that f finds the same memory, still in the cache, at each evaluation
            if search.frozen is not None and compaction.due(search):
                staying = compaction.drop(search, iteration, function.evaluations)
                function.keep_rows(staying)
                z = z[staying]
                buffer = torch.empty_like(z)
        else:
            # The budget's last evaluation, mostly that of the solution, which may keep its graph.
            inverse = iteration.inverse()
            del iteration  # its memory makes room for the graph
            function.origin = origin if exchanges() == alone else None
            z = search.with_results(z)
            fz = function(z)
            spent = function.evaluations
            search.observe(z, fz, torch.sub(fz, z, out=buffer), spent)
            if trajectory.due(spent):
                trajectory.keep(spent, compaction.whole_state(search, search.usable(z)))
        search.finish(function.evaluations)
        outcome = compaction.whole(search)
        return Solution(
            z=layout.restore(outcome.z),
            residual=outcome.residual,
            steps=outcome.steps,
            status=outcome.status,
            nfe=function.evaluations,
            sample_evaluations=compaction.sample_evaluations(function.evaluations),
            products=function.products,
            trace=torch.stack(search.trace) if search.trace is not None else None,
            states=tuple(layout.restore(state) for state in trajectory.finish(outcome.z)),
            inverse=compaction.whole_inverse(search, inverse),
            evaluation=function.latest if origin and function.origin == origin else None,
            together=exchanges() > alone,
        )

    def _may_stop(self, search: Search, together: bool) -> bool:
        """Whether all samples have ended; together: those of all processes too."""
        ended = search.check()
        return ended_everywhere(ended, search.status.device) if together else ended

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
