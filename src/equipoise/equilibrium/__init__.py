"""The implicit layer: solvers, gradient estimators, and the layer that joins them. Plain torch."""

from equipoise.equilibrium.fidelity import Fidelity, compare_gradients, gradient_fidelity
from equipoise.equilibrium.gradients import (
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
from equipoise.equilibrium.initial import MixedStart, StartRule, mixed_start, zero_start
from equipoise.equilibrium.layer import Equilibrium
from equipoise.equilibrium.regularizers import (
    FixedPointCorrection,
    JacobianRegularizer,
    Regularizer,
    attach_states,
    jacobian_norm,
)
from equipoise.equilibrium.solution import NotConvergedError, Solution, SolveReport, Status
from equipoise.equilibrium.solvers import (
    AdjointBroyden,
    Anderson,
    Broyden,
    FixedPoint,
    LowRankInverse,
    NewtonKrylov,
    Solver,
)
from equipoise.equilibrium.spectrum import jacobian_spectral_norm, spectral_radius
from equipoise.equilibrium.state import Function, State

__all__ = [
    "AdjointBroyden",
    "Anderson",
    "Auto",
    "Broyden",
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
    "Status",
    "Unrolled",
    "attach_states",
    "compare_gradients",
    "gradient_fidelity",
    "jacobian_norm",
    "jacobian_spectral_norm",
    "mixed_start",
    "spectral_radius",
    "with_budget",
    "zero_start",
]
