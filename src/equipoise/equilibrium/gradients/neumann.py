"""The phantom gradient by a truncated Neumann series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.equilibrium.backward_graph import Graph, Rule
from equipoise.equilibrium.gradients.estimator import CotangentRule
from equipoise.equilibrium.solution import Solution, SolveReport


@dataclass(frozen=True)
class Neumann(CotangentRule):
    """(I - J)^-1 is taken as damping (I + P + ... + P^(steps-1)), P = damping J + (1 - damping) I.

    One graph of f, at the solution, serves all products. Cost: one f, `steps` - 1 products with J^T
    and the backward pass towards the parameters; memory of one f whatever `steps`.
    Source: Geng et al. 2021 (arXiv 2111.05177), the Neumann-series-based phantom gradient.
    """

    name: ClassVar[str] = "neumann"

    steps: int = 10
    damping: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.damping <= 1:
            raise ValueError("neumann needs at least one step and a damping in (0, 1]")

    def rule(self, solution: Solution) -> Rule:
        """The sum of the series."""
        return self._sum

    def _sum(self, cotangent: Tensor, graph: Graph) -> tuple[Tensor, SolveReport]:
        """By Horner's scheme: w <- P^T w + damping c, from w = damping c."""
        scaled = cotangent if self.damping == 1.0 else cotangent * self.damping
        w = scaled
        for _ in range(self.steps - 1):
            product = graph.product(w)
            step = product if self.damping == 1.0 else torch.lerp(w, product, self.damping)
            w = step + scaled
        return w, SolveReport(nfe=self.steps)
