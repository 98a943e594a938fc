"""Fixed-point iteration with momentum."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from equipoise.equilibrium import Solver
from equipoise.equilibrium.flat_function import FlatFunction
from equipoise.equilibrium.iteration import Iteration


@dataclass
class HeavyBallIteration(Iteration):
    """z <- f(z) + momentum (z - previous z)."""

    momentum: float
    previous: Tensor

    def advance(self, z: Tensor, fz: Tensor, g: Tensor, frozen: Tensor | None) -> Tensor:
        """The next iterate."""
        ahead = fz.add(z - self.previous, alpha=self.momentum)
        self.previous = z
        return ahead

    def keep_rows(self, rows: Tensor) -> None:
        """Go on with these samples alone."""
        self.previous = self.previous[rows]


@dataclass(frozen=True, kw_only=True)
class HeavyBall(Solver):
    """Polyak's momentum on z <- f(z)."""

    momentum: float = 0.1

    def start(self, z0: Tensor, function: FlatFunction) -> HeavyBallIteration:
        """At rest at z0."""
        return HeavyBallIteration(self.momentum, z0)
