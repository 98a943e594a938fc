"""The implicit layer: solvers, gradient estimators, and the layer that joins them. Plain torch."""

from equipoise.equilibrium.backward_graph import Fidelity, compare_gradients
from equipoise.equilibrium.curvature_pairs import CurvaturePairs
from equipoise.equilibrium.descent import Descent
from equipoise.equilibrium.diagnostics import (
    budget_for,
    contraction_of,
    gradient_fidelity,
    jacobian_spectral_norm,
    spectral_radius,
)
from equipoise.equilibrium.gradients import (
    AdjointMemory,
    Auto,
    Exact,
    GradientEstimator,
    JacobianFree,
    Neumann,
    Phantom,
    Reversible,
    Shine,
    Unrolled,
    with_budget,
)
from equipoise.equilibrium.layer import Equilibrium, attach_states
from equipoise.equilibrium.randomness import MixedStart, StartRule, mixed_start, zero_start
from equipoise.equilibrium.regularizers import (
    FixedPointCorrection,
    JacobianRegularizer,
    Regularizer,
    jacobian_norm,
)
from equipoise.equilibrium.solution import NotConvergedError, Solution, SolveReport, Status
from equipoise.equilibrium.solvers import (
    LBFGS,
    AdjointBroyden,
    Anderson,
    Broyden,
    ConjugateGradient,
    FixedPoint,
    LowRankInverse,
    NewtonKrylov,
    Solver,
)
from equipoise.equilibrium.state import Function, State
from equipoise.equilibrium.state_memory import StateMemory

__all__ = [
    "LBFGS",
    "AdjointBroyden",
    "AdjointMemory",
    "Anderson",
    "Auto",
    "Broyden",
    "ConjugateGradient",
    "CurvaturePairs",
    "Descent",
    "Equilibrium",
    "Exact",
    "Fidelity",
    "FixedPoint",
    "FixedPointCorrection",
    "Function",
    "GradientEstimator",
    "JacobianFree",
    "JacobianRegularizer",
    "LowRankInverse",
    "MixedStart",
    "Neumann",
    "NewtonKrylov",
    "NotConvergedError",
    "Phantom",
    "Regularizer",
    "Reversible",
    "Shine",
    "Solution",
    "SolveReport",
    "Solver",
    "StartRule",
    "State",
    "StateMemory",
    "Status",
    "Unrolled",
    "attach_states",
    "budget_for",
    "compare_gradients",
    "contraction_of",
    "gradient_fidelity",
    "jacobian_norm",
    "jacobian_spectral_norm",
    "mixed_start",
    "spectral_radius",
    "with_budget",
    "zero_start",
]
