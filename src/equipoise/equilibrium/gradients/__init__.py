"""Gradient estimators: one file per estimator."""

from equipoise.equilibrium.gradients.estimator import GradientEstimator
from equipoise.equilibrium.gradients.exact import Exact
from equipoise.equilibrium.gradients.jacobian_free import JacobianFree
from equipoise.equilibrium.gradients.phantom import Phantom
from equipoise.equilibrium.gradients.unrolled import Unrolled

__all__ = ["Exact", "GradientEstimator", "JacobianFree", "Phantom", "Unrolled"]
