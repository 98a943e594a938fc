"""The descent map of an objective: its fixed points are the objective's stationary points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from equipoise.equilibrium.curvature_pairs import CurvaturePairs

Gradient = Callable[..., Tensor]
"""(z (B, D), *inputs) -> gradient of the objective (B, D)."""
ValueAndGradient = Callable[..., tuple[Tensor, Tensor]]
"""(z (B, D), *inputs) -> (objective of each sample (B,), its gradient (B, D))."""


@dataclass
class Descent:
    """f(z) = z - grad h(z): one step of gradient descent, in units in which step length 1 is good.

    Where the Hessian of h lies between 0 and the identity, f contracts, its Jacobian I - H is
    symmetric, and every solver and estimator may be used. A solver that minimises (`LBFGS`) needs
    more than the map: `values`, those of the latest evaluation without a graph.

    gradient: written with differentiable operations, for the estimators. objective: the value and
    the same gradient without a graph, for the solver. outer_gradient: z -> gradient (B, D) of the
    outer loss, for which a solver may refine its inverse. pairs: earlier curvature pairs to start
    from; adjoint (B, D): an earlier estimate of A^-1 grad L, A the Hessian of h and grad L that
    gradient. A solver stores its newer ones here.
    """

    gradient: Gradient
    objective: ValueAndGradient
    outer_gradient: Callable[[Tensor], Tensor] | None = None
    pairs: CurvaturePairs | None = None
    adjoint: Tensor | None = None
    values: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)

    def __call__(self, z: Tensor, *inputs: Tensor) -> Tensor:
        """The state (B, D) after one step."""
        if torch.is_grad_enabled():
            return z - self.gradient(z, *inputs)
        self.values, gradient = self.objective(z, *inputs)
        return z - gradient
