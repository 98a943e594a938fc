"""Plain weight-tied unrolling with backpropagation through all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from equipoise.equilibrium.gradients.estimator import report_products
from equipoise.equilibrium.solution import Solution
from equipoise.equilibrium.solvers.stopping import TINY
from equipoise.equilibrium.state import Function, Layout, State


@dataclass(frozen=True)
class Unrolled:
    """z <- f(z), `steps` times from z0, in training and in evaluation; no solver runs.

    The warm-up phase of the papers (Bai et al. 2019, 2020), and the explicit baseline. Cost:
    `steps` evaluations and products; memory grows with `steps` unless checkpoint is set, which
    recomputes every evaluation in the backward pass.
    """

    name: ClassVar[str] = "unrolled"
    own_iteration: ClassVar[bool] = True

    steps: int = 10
    checkpoint: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"unrolled needs at least one step, got {self.steps}")

    def attach(self, f: Function, solution: Solution, z0: State, *inputs: Tensor) -> State:
        """f applied `steps` times; the report tells the residual of the last iterate evaluated."""
        evaluate: Any = f
        if self.checkpoint and torch.is_grad_enabled():
            evaluate = lambda z, *rest: checkpoint(f, z, *rest, use_reentrant=False)  # noqa: E731
        before, state = z0, z0
        for _ in range(self.steps):
            before, state = state, evaluate(state, *inputs)
        self._report(solution, before, state)
        report_products(state, solution.report, self.steps)
        return state

    @torch.no_grad()
    def _report(self, solution: Solution, before: State, state: State) -> None:
        layout = Layout.of(before)
        z, fz = layout.flatten(before), layout.flatten(state)
        size = torch.linalg.vector_norm(fz, dim=1)
        report = solution.report
        report.residual = torch.linalg.vector_norm(fz - z, dim=1) / (size + TINY)
        report.steps = torch.full_like(solution.steps, self.steps)
        report.nfe = self.steps
