"""The coupled states of the reversible equilibrium."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.equilibrium.function import evaluate
from equipoise.equilibrium.gradients.own_iteration import report_iteration
from equipoise.equilibrium.gradients.replay import Circumstances
from equipoise.equilibrium.solution import SolveReport
from equipoise.equilibrium.solvers.stopping import StoppingRule
from equipoise.equilibrium.state import Function, Layout, State, parts


@dataclass
class CoupledSteps:
    """y <- (1 - b) y + b f(z), z <- (1 - b) z + b f(y), `steps` times; b is the relaxation.

    States are float64 matrices (B, D) whatever f's own precision, `dtypes` per part: each step back
    divides by 1 - b and so multiplies rounding errors.
    """

    f: Function
    layout: Layout
    dtypes: tuple[torch.dtype, ...]
    steps: int
    relaxation: float
    rule: StoppingRule
    report: SolveReport

    def state(self, flat: Tensor) -> State:
        """(B, D) -> a state in the precision that f takes."""
        rows = parts(self.layout.restore(flat))
        cast = tuple(part.to(dtype) for part, dtype in zip(rows, self.dtypes, strict=True))
        return cast if self.layout.is_tuple else cast[0]

    def evaluate(self, flat: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        """f: (B, D) -> (B, D)."""
        return self.layout.flatten(evaluate(self.f, self.state(flat), *inputs))

    def relax(self, old: Tensor, value: Tensor) -> Tensor:
        """(1 - b) old + b value."""
        return torch.lerp(old, value, self.relaxation)

    def unrelax(self, new: Tensor, value: Tensor) -> Tensor:
        """The `old` of which `relax` has made `new`."""
        return new.sub(value, alpha=self.relaxation).div_(1 - self.relaxation)

    def run(
        self, start: Tensor, inputs: tuple[Tensor, ...], first: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Circumstances]]:
        """y, z after all steps, and how the evaluations after the first were made.

        first: f(start), where it is known.
        """
        y = z = start
        made: list[Circumstances] = []
        for _ in range(self.steps):
            if first is None:
                made.append(Circumstances.now(self.layout.device))
                first = self.evaluate(z, inputs)
            y, first = self.relax(y, first), None
            made.append(Circumstances.now(self.layout.device))
            value = self.evaluate(y, inputs)
            z = self.relax(z, value)
        self._note(y, value)
        return y, z, made

    def _note(self, y: Tensor, fy: Tensor) -> None:
        """The forward report; the residual is that of y at the last evaluation."""
        report_iteration(self.report, self.rule, y, fy, 2 * self.steps)
