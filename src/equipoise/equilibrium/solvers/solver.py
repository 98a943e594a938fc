"""What all forward solvers share: the settings, and the loop around one method's update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from equipoise.equilibrium.solution import Solution
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

    def inverse(self) -> LowRankInverse | None:
        """The estimate of (J_f - I)^-1 that the method has built, if it builds one."""
        return None


@dataclass(frozen=True, kw_only=True)
class Solver(ABC):
    """Finds z with z = f(z, *inputs); a record of settings without state of its own.

    max_steps: evaluations of f at most. tol: residual at which a sample is done; 0 spends the whole
    budget. stop: how the residual is measured (`StoppingRule`). check_every: the host reads the
    device at most once in so many evaluations, and samples are frozen only then. patience: a sample
    whose best residual is so many evaluations old has stagnated. trace: keep every residual.
    keep_states: evaluations, counted from 1 and increasing, whose iterate is kept in
    `Solution.states`. dtype: of the state and all algebra on it; None is the state's own, float32
    at least.
    """

    name: ClassVar[str]

    max_steps: int = 30
    tol: float = 1e-3
    stop: Stop = "relative"
    check_every: int = 1
    patience: int = 30
    trace: bool = False
    keep_states: tuple[int, ...] = ()
    dtype: Precision | None = None

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.check_every < 1 or self.patience < 1:
            raise ValueError("max_steps, check_every and patience must be at least 1")
        if not self.tol >= 0:
            raise ValueError("tol must be 0 (the whole budget) or positive")
        if self.stop not in ("relative", "absolute", "mixed"):
            raise ValueError(f"stop must be relative, absolute or mixed, not {self.stop!r}")
        chosen = tuple(self.keep_states)
        if any(step < 1 for step in chosen) or list(chosen) != sorted(set(chosen)):
            raise ValueError(f"keep_states must increase from 1 or more, got {chosen}")
        object.__setattr__(self, "keep_states", chosen)  # a configuration gives a list

    @abstractmethod
    def start(self, z0: Tensor, function: FlatFunction) -> Iteration:
        """The method's memory at the start of a solve from z0 (B, D)."""

    @torch.no_grad()
    def solve(self, f: Function, z0: State, *inputs: Tensor) -> Solution:
        """Iterate from z0 until every sample has ended or the budget is spent.

        f(z, *inputs) -> state of z's shape, evaluated as it is, under the caller's autocast. No
        graph is kept: gradients are the estimators' business.
        """
        layout = Layout.of(z0, getattr(torch, self.dtype) if self.dtype else None)
        function = FlatFunction(f, layout, inputs, resolution(z0, layout))
        z = layout.flatten(z0)
        rule = StoppingRule(self.stop, self.tol, function.resolution)
        search = Search(z, rule, self.patience, self.trace)
        trajectory = Trajectory(self.keep_states)
        iteration = self.start(z, function)
        g = torch.empty_like(z)
        checked = 0
        while True:
            fz = function(z)
            torch.sub(fz, z, out=g)
            spent = function.evaluations
            search.observe(z, fz, g, spent)
            if trajectory.due(spent):
                trajectory.keep(spent, search.usable(z))
            if spent >= self.max_steps:
                break
            if self.tol > 0 and spent - checked >= self.check_every:
                checked = spent
                if search.check():
                    break
            z = iteration.advance(z, fz, g, search.frozen)
        search.finish()
        best = search.best.get()
        return Solution(
            z=layout.restore(best),
            residual=search.best_residual,
            steps=search.steps,
            status=search.status,
            nfe=function.evaluations,
            products=function.products,
            trace=torch.stack(search.trace) if search.trace is not None else None,
            states=tuple(layout.restore(state) for state in trajectory.finish(best)),
            inverse=iteration.inverse(),
        )
