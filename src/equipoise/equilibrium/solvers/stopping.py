"""How far an iterate is from the fixed point, and when that is near enough."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from equipoise.equilibrium.state import Layout, State, parts

Stop = Literal["relative", "absolute", "mixed"]
TINY = 1e-9


@dataclass(frozen=True)
class StoppingRule:
    """Residual of a sample by one of three rules, and the least value the arithmetic resolves.

    relative: |f(z) - z| / (|f(z)| + 1e-9); absolute: |f(z) - z|; mixed: |f(z) - z| / (1 + |f(z)|);
    2-norms over the sample's whole state. units: (B,), the lengths that stand for 1 in them, where
    the samples are of different scale.
    """

    stop: Stop
    tol: float
    resolution: float
    units: Tensor | float = 1.0

    def __call__(self, gap: Tensor, size: Tensor) -> Tensor:
        """gap = |f(z) - z| (B,), size = |f(z)| (B,) -> residual (B,)."""
        if self.stop == "absolute":
            return gap if isinstance(self.units, float) else gap / self.units
        return gap / (size + self.added)

    def reached(self, residual: Tensor, size: Tensor) -> Tensor:
        """(B,) bool: the tolerance, or the last digit that the arithmetic resolves, is reached."""
        if self.stop == "relative":  # the last digit is the same whatever the size
            return residual <= max(self.tol, self.resolution)
        floor = self(self.resolution * size, size)
        return residual <= floor.clamp(min=self.tol)

    @cached_property
    def added(self) -> Tensor | float:
        """What keeps the residual of a vanishing sample finite."""
        return (TINY if self.stop == "relative" else 1.0) * self.units


def resolution(z0: State, layout: Layout) -> float:
    """Unit round-off of f: of its autocast dtype where autocast is on, else of the state's.

    Asking for less than this residual would spend the whole budget on rounding noise.
    """
    device = layout.device.type
    if torch.is_autocast_enabled(device):
        return torch.finfo(torch.get_autocast_dtype(device)).eps
    return max(torch.finfo(part.dtype).eps for part in parts(z0))
