"""Functions with known behaviour, and one solver of each kind, for the tests of the solvers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from equipoise.equilibrium import (
    AdjointBroyden,
    Anderson,
    Broyden,
    FixedPoint,
    NewtonKrylov,
    Solver,
)

SOLVERS: tuple[type[Solver], ...] = (FixedPoint, Anderson, Broyden, AdjointBroyden, NewtonKrylov)


def dense(
    gain: float = 0.7,
    batch: int = 4,
    width: int = 32,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]:
    """f(z, x) = tanh(W z + x) with a Gaussian W of spectral radius about `gain`; z0 and x."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(width, width, generator=generator, dtype=dtype) * gain / width**0.5
    x = scale * torch.randn(batch, width, generator=generator, dtype=dtype)
    return lambda z, x: torch.tanh(z @ weight.T + x), torch.zeros_like(x), x


class Counted:
    """f, with the number of its evaluations and every iterate that it saw."""

    def __init__(self, f: Callable[..., Tensor]) -> None:
        self.f = f
        self.seen: list[Tensor] = []

    def __call__(self, z: Tensor, *inputs: Tensor) -> Tensor:
        self.seen.append(z.detach().clone())
        return self.f(z, *inputs)

    @property
    def calls(self) -> int:
        return len(self.seen)


def residuals(f: Callable[..., Tensor], z: Tensor, *inputs: Tensor) -> Tensor:
    """The relative residual of every sample."""
    with torch.no_grad():
        fz = f(z, *inputs)
    return (fz - z).norm(dim=1) / (fz.norm(dim=1) + 1e-9)
