"""The coupled steps as one node of the graph, whose backward rebuilds the states by inversion."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equipoise.equilibrium.gradients.coupled_steps import CoupledSteps
from equipoise.equilibrium.gradients.pullback import Pullback
from equipoise.equilibrium.gradients.replay import Circumstances
from equipoise.equilibrium.gradients.second_derivatives import refuse_second_derivatives
from equipoise.equilibrium.solution import SolveReport
from equipoise.equilibrium.solvers.stopping import TINY
from equipoise.equilibrium.state import parts


class ReversibleSteps(torch.autograd.Function):
    """All coupled steps as one node of f(z0), z0, f's inputs and the leaves that f reads."""

    @staticmethod
    def forward(
        ctx: Any,
        coupled: CoupledSteps,
        first_circumstances: Circumstances,
        first: Tensor,
        counts: tuple[int, int],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        """Run the steps without a graph, and keep only where they ended."""
        z0, inputs, leaves = _split(tensors, counts)
        start = coupled.layout.flatten(z0 if coupled.layout.is_tuple else z0[0])
        y, z, made = coupled.run(start, inputs, first)
        ctx.coupled = coupled
        ctx.needs = [tensor.requires_grad for tensor in inputs]
        ctx.circumstances = [first_circumstances, *made]
        # Leaves are kept as the objects that they are: hooks on saved tensors may give back copies.
        ctx.leaves, ctx.versions = leaves, [leaf._version for leaf in leaves]
        ctx.save_for_backward(y, z, start, *inputs)
        return parts(coupled.state(z.clone()))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        """Undo the steps one by one, each with its product."""
        refuse_second_derivatives()
        coupled: CoupledSteps = ctx.coupled
        if ctx.versions != [leaf._version for leaf in ctx.leaves]:
            raise RuntimeError("a parameter was modified in place between forward and backward")
        y, z, start, *inputs = ctx.saved_tensors
        end = torch.linalg.vector_norm(z, dim=1)
        pull = Pullback(coupled, _local(inputs, ctx.needs), ctx.leaves)
        made = list(ctx.circumstances)
        c_z = coupled.layout.flatten(cotangents if coupled.layout.is_tuple else cotangents[0])
        c_y = torch.zeros_like(c_z)
        keep = 1 - coupled.relaxation
        while made:
            value, product = pull(y, c_z, made.pop())
            z, c_y, c_z = coupled.unrelax(z, value), c_y + product, c_z * keep
            first = len(made) == 1
            # The start is known: an f that normalises is steep at a start of zeros.
            value, product = pull(start if first else z, c_y, made.pop())
            y, c_z, c_y = coupled.unrelax(y, value), c_z + product, c_y * keep
        error = torch.linalg.vector_norm(z - start, dim=1)
        coupled.report.backward = SolveReport(2 * coupled.steps, residual=error / (end + TINY))
        towards_start = parts(coupled.state(c_y + c_z))
        leading = (None, None, None, None, *towards_start)
        return (*leading, *pull.input_gradients(), *pull.leaf_gradients())


def _split(
    tensors: tuple[Tensor, ...], counts: tuple[int, int]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The parts of z0, f's inputs, the leaves."""
    first, second = counts[0], counts[0] + counts[1]
    return tensors[:first], tensors[first:second], tensors[second:]


def _local(tensors: list[Tensor], needs: list[bool]) -> tuple[Tensor, ...]:
    """The same values as leaves of their own."""
    pairs = zip(tensors, needs, strict=True)
    return tuple(tensor.detach().requires_grad_(needed) for tensor, needed in pairs)
