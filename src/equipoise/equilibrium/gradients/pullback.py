"""Evaluating f again in a backward pass, for its products with J^T and with df/d(theta, inputs)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.equilibrium.function import evaluate
from equipoise.equilibrium.gradients.coupled_steps import CoupledSteps
from equipoise.equilibrium.gradients.leaves import leaf_tensors
from equipoise.equilibrium.gradients.replay import Circumstances
from equipoise.equilibrium.state import State, detached, parts


@dataclass
class Pullback:
    """f evaluated again, with its products; gradients towards `inputs` and `leaves` add up.

    inputs: leaves of the caller's own, of which some require gradients.
    """

    coupled: CoupledSteps
    inputs: tuple[Tensor, ...]
    leaves: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        wanted = (tensor for tensor in self.inputs if tensor.requires_grad)
        self.targets = (*wanted, *self.leaves)
        self.totals = tuple(torch.zeros_like(target) for target in self.targets)

    def __call__(
        self, flat: Tensor, cotangent: Tensor, circumstances: Circumstances
    ) -> tuple[Tensor, Tensor]:
        """f(z), and b J^T c, for z and c (B, D); b times the other gradients are added up."""
        coupled = self.coupled
        with torch.enable_grad(), circumstances.again():
            state = detached(coupled.state(flat))
            value = evaluate(coupled.f, state, *self.inputs)
        self._check(value, state)
        weighted = parts(coupled.layout.restore(cotangent * coupled.relaxation))
        pairs = [
            (part, c.to(part.dtype))
            for part, c in zip(parts(value), weighted, strict=True)
            if part.requires_grad
        ]
        # The graph may lead on into tensors that f has captured, which the next call passes again.
        found = torch.autograd.grad(
            [part for part, _ in pairs],
            (*parts(state), *self.targets),
            [c for _, c in pairs],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        count = len(parts(state))
        for total, gradient in zip(self.totals, found[count:], strict=True):
            total.add_(gradient)
        products = found[:count] if coupled.layout.is_tuple else found[0]
        return coupled.layout.flatten(value).detach(), coupled.layout.flatten(products)

    def input_gradients(self) -> list[Tensor | None]:
        """One entry an input, None where it needs no gradient."""
        found = iter(self.totals)
        return [next(found) if tensor.requires_grad else None for tensor in self.inputs]

    def leaf_gradients(self) -> tuple[Tensor, ...]:
        """One entry a leaf."""
        return self.totals[len(self.totals) - len(self.leaves) :]

    def _check(self, value: State, state: State) -> None:
        met = leaf_tensors(value, (*parts(state), *self.inputs))
        known = {id(leaf) for leaf in self.leaves}
        if any(id(leaf) not in known for leaf in met):
            raise RuntimeError(
                "f reads other parameters in the backward pass than at its first evaluation; "
                "the reversible gradient needs an f that reads the same ones every time"
            )
