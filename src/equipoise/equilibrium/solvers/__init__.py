"""Forward solvers: one file per method."""

from equipoise.equilibrium.iteration import Iteration
from equipoise.equilibrium.low_rank import LowRankInverse
from equipoise.equilibrium.solvers.adjoint_broyden import AdjointBroyden
from equipoise.equilibrium.solvers.anderson import Anderson
from equipoise.equilibrium.solvers.broyden import Broyden
from equipoise.equilibrium.solvers.conjugate_gradient import ConjugateGradient
from equipoise.equilibrium.solvers.fixed_point import FixedPoint
from equipoise.equilibrium.solvers.lbfgs import LBFGS
from equipoise.equilibrium.solvers.newton_krylov import NewtonKrylov
from equipoise.equilibrium.solvers.solver import Solver

__all__ = [
    "LBFGS",
    "AdjointBroyden",
    "Anderson",
    "Broyden",
    "ConjugateGradient",
    "FixedPoint",
    "Iteration",
    "LowRankInverse",
    "NewtonKrylov",
    "Solver",
]
