"""Refusing what is no solver and no estimator, in a sentence."""

from __future__ import annotations

from equipoise.equilibrium.gradients import GradientEstimator
from equipoise.equilibrium.solvers import Solver


def checked_solver(value: Solver, role: str = "solver") -> Solver:
    """The solver; raises TypeError for anything else, such as the name of one."""
    if isinstance(value, Solver):
        return value
    raise TypeError(f"{role} must be a solver such as Anderson() or Broyden(), {_got(value)}")


def checked_estimator(value: GradientEstimator) -> GradientEstimator:
    """The estimator; raises TypeError for anything else, such as the name of one."""
    if not isinstance(value, type) and hasattr(value, "attach") and hasattr(value, "own_iteration"):
        return value
    raise TypeError(f"gradient must be an estimator such as Exact() or Phantom(), {_got(value)}")


def _got(value: object) -> str:
    if isinstance(value, str):
        return f"not the string {value!r}"
    if isinstance(value, type):
        return f"not the class {value.__name__}: write {value.__name__}()"
    return f"not {'None' if value is None else f'a value of type {type(value).__name__}'}"
