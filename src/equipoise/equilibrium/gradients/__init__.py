"""Gradient estimators: one file per estimator."""

from equipoise.equilibrium.gradients.auto import Auto
from equipoise.equilibrium.gradients.estimator import GradientEstimator, with_budget
from equipoise.equilibrium.gradients.exact import AdjointMemory, Exact
from equipoise.equilibrium.gradients.jacobian_free import JacobianFree
from equipoise.equilibrium.gradients.neumann import Neumann
from equipoise.equilibrium.gradients.phantom import Phantom
from equipoise.equilibrium.gradients.reversible import Reversible
from equipoise.equilibrium.gradients.shine import Shine
from equipoise.equilibrium.gradients.unrolled import Unrolled

__all__ = [
    "AdjointMemory",
    "Auto",
    "Exact",
    "GradientEstimator",
    "JacobianFree",
    "Neumann",
    "Phantom",
    "Reversible",
    "Shine",
    "Unrolled",
    "with_budget",
]
