"""The implicit layer: solvers, gradient estimators, and the layer that joins them. Plain torch."""

from equipoise.equilibrium.gradients import (
    Exact,
    GradientEstimator,
    JacobianFree,
    Phantom,
    Unrolled,
)
from equipoise.equilibrium.layer import Equilibrium
from equipoise.equilibrium.solution import NotConvergedError, Solution, SolveReport, Status
from equipoise.equilibrium.solvers import Anderson, Broyden, FixedPoint, Solver
from equipoise.equilibrium.state import Function, State

__all__ = [
    "Anderson",
    "Broyden",
    "Equilibrium",
    "Exact",
    "FixedPoint",
    "Function",
    "GradientEstimator",
    "JacobianFree",
    "NotConvergedError",
    "Phantom",
    "Solution",
    "SolveReport",
    "Solver",
    "State",
    "Status",
    "Unrolled",
]
