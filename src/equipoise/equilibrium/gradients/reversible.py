"""The reversible equilibrium: an iteration that can be run backwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.equilibrium.function import evaluate
from equipoise.equilibrium.gradients.coupled_steps import CoupledSteps
from equipoise.equilibrium.gradients.estimator import constant
from equipoise.equilibrium.gradients.functional_cotangent import transformed
from equipoise.equilibrium.gradients.inversion import ReversibleSteps
from equipoise.equilibrium.gradients.leaves import leaf_tensors
from equipoise.equilibrium.gradients.own_iteration import rule_of
from equipoise.equilibrium.gradients.replay import Circumstances
from equipoise.equilibrium.solution import Solution
from equipoise.equilibrium.state import Function, Layout, State, parts


@dataclass(frozen=True)
class Reversible:
    """Coupled relaxation from z0, whose backward pass rebuilds every state by inversion.

    y <- (1 - b) y + b f(z), z <- (1 - b) z + b f(y), b = `relaxation` in (0, 2) but not 1, in
    training and in evaluation; no solver runs. The gradient is exact for the steps taken. Cost: 2
    `steps` evaluations forward, the same and as many products with J^T backward; memory of one f
    and two float64 states whatever `steps`. Every step back multiplies rounding errors by up to
    1 / |1 - b|: `report.backward.residual` is |rebuilt z0 - z0| / |z_N|.

    f may read parameters by closure, but what it computes must not depend on anything that changes
    until the backward pass; random numbers and autocast are repeated. Hooks on a parameter run once
    an evaluation. Source: arXiv 2509.12917, the coupled update and its algebraic inverse.
    """

    name: ClassVar[str] = "reversible"
    own_iteration: ClassVar[bool] = True

    steps: int = 6
    relaxation: float = 0.8

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"reversible needs at least one step, got {self.steps}")
        if not 0 < self.relaxation < 2 or self.relaxation == 1:
            raise ValueError(f"relaxation must lie in (0, 2) and not be 1, got {self.relaxation}")

    def with_budget(self, evaluations: int) -> Reversible:
        """Two evaluations a step."""
        return replace(self, steps=max(evaluations // 2, 1))

    def attach(self, f: Function, solution: Solution, z0: State, *inputs: Tensor) -> State:
        """z after all steps."""
        dtypes = tuple(part.dtype for part in parts(z0))
        layout = Layout.of(z0, torch.float64)
        rule, report = rule_of(solution), solution.report
        coupled = CoupledSteps(f, layout, dtypes, self.steps, self.relaxation, rule, report)
        if not torch.is_grad_enabled():
            _, z, _ = coupled.run(layout.flatten(z0), inputs)
            return coupled.state(z)
        if transformed():
            raise ValueError("reversible does not work inside torch.func transforms; use unrolled")
        return self._attached(coupled, z0, inputs)

    def _attached(self, coupled: CoupledSteps, z0: State, inputs: tuple[Tensor, ...]) -> State:
        circumstances = Circumstances.now(coupled.layout.device)
        first, leaves = _traced(coupled, z0, inputs)
        tensors = (*parts(z0), *inputs, *leaves)
        counts = (len(parts(z0)), len(inputs))
        outputs = ReversibleSteps.apply(coupled, circumstances, first, counts, *tensors)
        return outputs if coupled.layout.is_tuple else outputs[0]


def _traced(
    coupled: CoupledSteps, z0: State, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """f(z0) (B, D), evaluated with a graph, which tells the leaves that f reads by closure."""
    local = tuple(x.detach().requires_grad_(x.requires_grad) for x in inputs)
    value = evaluate(coupled.f, constant(z0), *local)
    return coupled.layout.flatten(value).detach(), leaf_tensors(value, local)
