"""Objectives with their descent maps, for tests of solvers and estimators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.equilibrium import Descent
from equipoise.equilibrium.descent import ValueAndGradient
from tests.equilibrium.systems import System, leaf


def definite(batch: int, width: int, lowest: float, seed: int) -> Tensor:
    """(B, D, D) symmetric matrices with eigenvalues from `lowest` to 1."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(batch, width, width, generator=generator).double())[0]
    values = torch.rand(batch, width, generator=generator).double() * (1 - lowest) + lowest
    values[:, 0] = lowest
    return basis @ torch.diag_embed(values) @ basis.transpose(1, 2)


def gaussian(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@dataclass(frozen=True)
class Quadratic:
    """z^T A z / 2 - b^T z per sample, summed so that a sample rounds alike in any batch."""

    matrix: Tensor
    shift: Tensor

    def product(self, z: Tensor) -> Tensor:
        return (self.matrix * z.unsqueeze(1)).sum(dim=2)

    def gradient(self, z: Tensor) -> Tensor:
        return self.product(z) - self.shift

    def objective(self, z: Tensor) -> tuple[Tensor, Tensor]:
        gradient = self.gradient(z)
        return 0.5 * (z * (gradient - self.shift)).sum(dim=1), gradient

    def solution(self) -> Tensor:
        return torch.linalg.solve(self.matrix, self.shift.unsqueeze(2)).squeeze(2)

    def rows(self, rows: slice) -> Quadratic:
        return Quadratic(self.matrix[rows], self.shift[rows])

    def descent(self) -> Descent:
        return Descent(self.gradient, self.objective)


def quadratic(batch: int = 4, width: int = 10, lowest: float = 0.05, seed: int = 0) -> Quadratic:
    return Quadratic(definite(batch, width, lowest, seed), gaussian(batch, width, seed=seed + 1))


def uneven() -> Quadratic:
    """Samples at which a solve ends at very different evaluations."""
    parts = [quadratic(1, 10, lowest, seed) for seed, lowest in enumerate((0.999, 0.02, 0.2, 0.05))]
    matrix, shift = (torch.cat([getattr(p, name) for p in parts]) for name in ("matrix", "shift"))
    return Quadratic(matrix, shift)


ROSENBROCK_UNIT = 2000.0
"""Above the largest eigenvalue of the Hessian at (-1.2, 1)."""


def rosenbrock(z: Tensor) -> tuple[Tensor, Tensor]:
    """Rosenbrock's function of any width, of a Hessian below 1 near the usual start."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        rise, fall = z[:, 1:] - z[:, :-1].square(), 1 - z[:, :-1]
        value = (100 * rise.square() + fall.square()).sum(dim=1) / ROSENBROCK_UNIT
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


def rosenbrock_descent() -> Descent:
    return Descent(lambda z: rosenbrock(z)[1], rosenbrock)


class Recorded:
    """An objective, with every point at which it was asked for."""

    def __init__(self, objective: ValueAndGradient) -> None:
        self.objective = objective
        self.points: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, z: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.objective(z, *inputs)
        self.points.append(z.clone())
        self.values.append(value)
        return value, gradient

    def descent(self, outer_gradient: Callable[[Tensor], Tensor] | None = None) -> Descent:
        return Descent(lambda z, *inputs: self.objective(z, *inputs)[1], self, outer_gradient)


def regularized(batch: int = 3) -> System:
    """sum log cosh(M z - x) + sum exp(lambda) z^2 / 2, with a Hessian between 0.3 and 1."""
    matrix = leaf(7, 5, scale=0.15, seed=31, dtype=torch.float64)
    log_strength = (leaf(5, scale=0.05, seed=32, dtype=torch.float64) - 1).detach().requires_grad_()
    x = leaf(batch, 7, scale=2.0, seed=33, dtype=torch.float64)

    def gradient(z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ matrix.T - x) @ matrix + log_strength.exp() * z

    def objective(z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        fit = torch.log(torch.cosh(z @ matrix.T - x)).sum(dim=1)
        return fit + 0.5 * (log_strength.exp() * z * z).sum(dim=1), gradient(z, x)

    start = torch.zeros(batch, 5, dtype=torch.float64)
    return System(Descent(gradient, objective), start, x, (matrix, log_strength))
