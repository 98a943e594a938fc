"""The random tanh equilibria on which the literature's estimators are compared."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.equilibrium.backward_graph import AttachedGraph, Rule
from equipoise.equilibrium.state import Layout, detached, parts

WIDTH = 128


@dataclass(frozen=True)
class RandomNetwork:
    """z = tanh(W z + x), W Gaussian, scaled to spectral radius 0.8 of J at the fixed point."""

    weight: Tensor
    x: Tensor
    cotangent: Tensor

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.weight.T + x)

    def solution(self) -> Tensor:
        z = torch.zeros_like(self.x)
        for _ in range(300):
            z = self.f(z, self.x)
        return z

    def jacobian(self) -> Tensor:
        return (1 - self.solution()[0] ** 2)[:, None] * self.weight

    def exact(self) -> Tensor:
        """(I - J)^-T c."""
        identity = torch.eye(WIDTH, dtype=self.weight.dtype)
        return torch.linalg.solve(identity - self.jacobian().T, self.cotangent[0])

    def error(self, rule: Rule, z: Tensor) -> float:
        """Relative error of what `rule` makes of the cotangent, with f's graph at z."""
        leaf = parts(detached(z))
        graph = AttachedGraph(leaf, (self.f(leaf[0], self.x),), Layout.of(z))
        found, _ = rule(self.cotangent, graph)
        exact = self.exact()
        return float((found[0] - exact).norm() / exact.norm())


def draw(seed: int, radius: float = 0.8) -> RandomNetwork:
    """One random network."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    x, cotangent = torch.randn(2, 1, WIDTH, generator=generator, dtype=torch.float64)
    network = RandomNetwork(weight * 0.08, x, cotangent)
    for _ in range(12):
        found = torch.linalg.eigvals(network.jacobian()).abs().max()
        network = RandomNetwork(network.weight * radius / found, x, cotangent)
    return network
