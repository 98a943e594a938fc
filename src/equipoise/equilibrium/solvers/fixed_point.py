"""Damped fixed-point (Picard) iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from equipoise.equilibrium.flat_function import FlatFunction
from equipoise.equilibrium.iteration import Iteration
from equipoise.equilibrium.solvers.solver import Solver


@dataclass(frozen=True)
class PicardIteration(Iteration):
    """z <- (1 - damping) z + damping f(z)."""

    damping: float

    def advance(self, z: Tensor, fz: Tensor, g: Tensor, frozen: Tensor | None) -> Tensor:
        """The damped step; undamped, the evaluation itself."""
        return fz if self.damping == 1.0 else z.add(g, alpha=self.damping)

    def keep_rows(self, rows: Tensor) -> None:
        """Nothing is remembered between steps."""


@dataclass(frozen=True, kw_only=True)
class FixedPoint(Solver):
    """z <- (1 - damping) z + damping f(z), damping in (0, 1], 1 = undamped.

    Converges linearly if the spectral radius of (1 - damping) I + damping J_f is below 1. No
    memory: besides f, a step takes three passes over the state.
    """

    name: ClassVar[str] = "fixed_point"

    damping: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping must lie in (0, 1], got {self.damping}")

    def start(self, z0: Tensor, function: FlatFunction) -> PicardIteration:
        """Nothing to remember."""
        return PicardIteration(self.damping)
