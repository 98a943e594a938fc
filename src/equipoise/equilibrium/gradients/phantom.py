"""The phantom gradient by damped unrolling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from equipoise.equilibrium.flat_function import evaluate
from equipoise.equilibrium.gradients.estimator import report_products
from equipoise.equilibrium.solution import Solution
from equipoise.equilibrium.state import Function, State, constant, damped, finite_or_kept


@dataclass(frozen=True)
class Phantom:
    """z <- (1 - damping) z + damping f(z), `steps` times from the solution, backpropagated through.

    Cost: `steps` evaluations and products with J^T; memory of `steps` graphs of f.
    Source: Geng et al. 2021 (arXiv 2111.05177), eq. 8 (unrolling-based phantom gradient).
    """

    name: ClassVar[str] = "phantom"
    own_iteration: ClassVar[bool] = False
    origin = staticmethod(constant)

    steps: int = 5
    damping: float = 0.5

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.damping <= 1:
            raise ValueError("phantom needs at least one step and a damping in (0, 1]")

    def attach(self, f: Function, solution: Solution, z0: State, *inputs: Tensor) -> State:
        """The state after the damped steps; the solution, for samples that become non-finite."""
        first = solution.evaluate(f, self.origin, *inputs)
        state = damped(first.z, first.fz, self.damping)
        for _ in range(self.steps - 1):
            state = damped(state, evaluate(f, state, *inputs), self.damping)
        state = finite_or_kept(state, solution.z)
        report_products(state, solution.report, self.steps)
        return state
