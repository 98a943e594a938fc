"""Plain weight-tied unrolling with backpropagation through all of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from equipoise.equilibrium.flat_function import evaluate
from equipoise.equilibrium.gradients.estimator import report_iteration, report_products, rule_of
from equipoise.equilibrium.solution import Solution
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

    def with_budget(self, evaluations: int) -> Unrolled:
        """One evaluation per step."""
        return replace(self, steps=max(evaluations, 1))

    def attach(self, f: Function, solution: Solution, z0: State, *inputs: Tensor) -> State:
        """f applied `steps` times; the report has the residual of the last iterate evaluated."""
        step: Function = partial(evaluate, f)
        if self.checkpoint and torch.is_grad_enabled():
            step = partial(checkpoint, step, use_reentrant=False)
        before, state = z0, z0
        for _ in range(self.steps):
            before, state = state, step(state, *inputs)
        layout = Layout.of(z0)
        ends = layout.flatten(before).detach(), layout.flatten(state).detach()
        report_iteration(solution.report, rule_of(solution), *ends, self.steps)
        report_products(state, solution.report, self.steps)
        return state
