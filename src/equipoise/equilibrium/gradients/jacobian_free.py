"""Jacobian-free backpropagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.equilibrium.gradients.estimator import report_products
from equipoise.equilibrium.solution import Solution
from equipoise.equilibrium.state import Function, State, detached


@dataclass(frozen=True)
class JacobianFree:
    """(I - J)^-T is taken as I: one attached evaluation of f, backpropagated once.

    Cost: one f and one product with J^T; memory of one f.
    Source: Fung et al. 2022 (arXiv 2103.12803), eq. 9.
    """

    name: ClassVar[str] = "jfb"
    own_iteration: ClassVar[bool] = False

    def attach(self, f: Function, solution: Solution, z0: State, *inputs: Tensor) -> State:
        """f(z*) with z* constant."""
        if not torch.is_grad_enabled():
            return solution.z
        state = f(detached(solution.z), *inputs)
        report_products(state, solution.report, 1)
        return state
