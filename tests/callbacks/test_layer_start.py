"""A callback's start of a layer's solves: for one batch, and the same again in a recomputation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from equipoise.callbacks.layer_start import LayerStart
from equipoise.equilibrium import Anderson, Equilibrium, JacobianFree
from equipoise.equilibrium.state import State
from equipoise.errors import UserError


class AtOnes(LayerStart):
    """Starts at 1, and keeps what the solves have left."""

    told_by = "at_ones"

    def __init__(self, layer: Equilibrium) -> None:
        super().__init__(layer)
        self.left: list[State] = []

    def start(self, z0: State) -> State:
        assert isinstance(z0, Tensor)
        return torch.ones_like(z0)

    def note(self, z: State) -> None:
        self.left.append(z)


@pytest.fixture
def layer() -> Equilibrium:
    return Equilibrium(Anderson(max_steps=2, tol=0.0), JacobianFree())


def half(z: Tensor, x: Tensor) -> Tensor:
    return 0.5 * z + x


def test_it_starts_the_solves_of_the_layer_until_it_leaves(layer: Equilibrium) -> None:
    x = torch.zeros(3, 4)
    start = AtOnes(layer)
    first = layer(half, torch.zeros_like(x), x)
    assert len(start.handed) == len(start.left) == 1
    assert torch.equal(start.left[0], first)
    start.leave()
    assert layer.start is None
    layer(half, torch.zeros_like(x), x)
    assert len(start.handed) == len(start.left) == 1


def test_a_recomputation_starts_where_the_solve_did_and_is_not_noted(layer: Equilibrium) -> None:
    start = AtOnes(layer)
    x = torch.rand(3, 4, requires_grad=True)
    z = checkpoint(lambda x: layer(half, torch.zeros_like(x), x), x, use_reentrant=False)
    z.sum().backward()
    assert len(start.handed) == len(start.left) == 1
    assert x.grad is not None
    assert x.grad.abs().min() > 0


def test_several_solves_within_one_recomputation_are_refused(layer: Equilibrium) -> None:
    AtOnes(layer)
    x = torch.rand(3, 4, requires_grad=True)

    def twice(x: Tensor) -> Tensor:
        return layer(half, layer(half, torch.zeros_like(x), x), x)

    z = checkpoint(twice, x, use_reentrant=False)
    with pytest.raises(UserError, match="callbacks=at_ones cannot repeat several solves"):
        z.sum().backward()
