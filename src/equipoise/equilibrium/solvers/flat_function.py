"""The function of a solve, as a map of matrices with a row per sample."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.equilibrium.function import evaluate
from equipoise.equilibrium.state import Function, Layout

NEEDED = "derivatives of f are needed here"
INSTEAD = "a solver that needs none is broyden"


class FlatFunction:
    """f(z, *inputs) on (B, D) matrices, which counts what is spent on it.

    evaluations: of f. products: of a vector with the transposed Jacobian of f. keeps_graph: the
    latest evaluation keeps its graph, which `transposed_product` needs. resolution: unit round-off
    of f, which the step of a difference has to respect.
    """

    def __init__(
        self, f: Function, layout: Layout, inputs: tuple[Tensor, ...], resolution: float
    ) -> None:
        self.f = f
        self.layout = layout
        self.inputs = inputs
        self.resolution = resolution
        self.evaluations = 0
        self.products = 0
        self.keeps_graph = False
        self._graph: tuple[Tensor, Tensor] | None = None

    def __call__(self, z: Tensor) -> Tensor:
        """f(z): (B, D) -> (B, D)."""
        self.evaluations += 1
        if not self.keeps_graph:
            return self._value(z)
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            value = self._value(leaf)
        self._graph = leaf, value
        return value.detach()

    def transposed_product(self, w: Tensor) -> Tensor:
        """J_f^T w at the z of the latest evaluation: (B, D) -> (B, D).

        Raises ValueError where f cannot be differentiated.
        """
        if self._graph is None or not self._graph[1].requires_grad:
            raise ValueError(f"{NEEDED}, and f disables autograd; {INSTEAD}")
        self.products += 1
        leaf, value = self._graph
        try:
            return torch.autograd.grad(
                value, leaf, w, retain_graph=True, allow_unused=True, materialize_grads=True
            )[0]
        except RuntimeError as error:
            if "not implemented" not in str(error):
                raise
            # A product with the Jacobian of fused attention has no derivative of its own.
            raise ValueError(f"{NEEDED}, and a kernel in f has none; {INSTEAD}") from error

    def product(self, z: Tensor, fz: Tensor, v: Tensor) -> Tensor:
        """J_f v at z, with f(z) given, for v (B, D) of unit norm: a forward difference.

        It costs one evaluation, and works with fused kernels and for functions that are products
        with a Jacobian themselves, where neither forward mode nor a double backward does.
        """
        size = torch.linalg.vector_norm(z, dim=1, keepdim=True)
        increment = self.resolution**0.5 * (1.0 + size)
        self.evaluations += 1
        return (self._value(z + increment * v) - fz).div_(increment)

    def narrow(self, rows: Tensor) -> None:
        """From now on f gets these rows (b,) of its inputs, and states of so many rows."""
        self.layout = self.layout.with_batch(len(rows))
        self.inputs = tuple(tensor[rows] for tensor in self.inputs)
        self._graph = None

    def _value(self, z: Tensor) -> Tensor:
        return self.layout.flatten(evaluate(self.f, self.layout.restore(z), *self.inputs))
