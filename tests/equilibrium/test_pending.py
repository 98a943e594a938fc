"""What a forward leaves for the loss does not outlive its use, and stands in no copy's way."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from equipoise.equilibrium import (
    Anderson,
    Equilibrium,
    FixedPointCorrection,
    JacobianFree,
    JacobianRegularizer,
    Regularizer,
)
from tests.equilibrium.gradients.estimators import layers

REGULARIZERS: dict[str, Callable[[], Regularizer]] = {
    "jacobian": JacobianRegularizer,
    "correction": FixedPointCorrection,
}
regularizers = pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)


class Network(nn.Module):
    """A layer with a regulariser behind a linear map."""

    def __init__(self, layer: Equilibrium) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.ones(4, 4))
        self.layer = layer

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.weight + x)

    def forward(self, x: Tensor) -> Tensor:
        injection = x @ self.weight
        state: Tensor = self.layer(self.f, torch.zeros_like(x), injection)
        return state


def network(regularizer: Regularizer) -> Network:
    solver = Anderson(max_steps=6, tol=0)
    return Network(Equilibrium(solver, JacobianFree(), regularizer=regularizer))


def tensors_with_a_graph() -> int:
    gc.collect()
    found = (thing for thing in gc.get_objects() if issubclass(type(thing), Tensor))
    return sum(not tensor.is_leaf for tensor in found)


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "average": lambda module: AveragedModel(module).module,
}


@pytest.mark.parametrize("name", [None, "exact", "phantom", "shine", "unrolled", "auto"])
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@regularizers
def test_a_copy_at_any_time(
    regularizer: Callable[[], Regularizer],
    copied: Callable[[nn.Module], nn.Module],
    name: str | None,
) -> None:
    net = network(regularizer())
    if name is not None:
        if regularizer is FixedPointCorrection and name not in ("jfb", "phantom"):
            pytest.skip("a correction needs jfb or phantom")
        net.layer = layers()[name]
        net.layer.regularizer = regularizer()
    x = torch.ones(3, 4)
    for backward in (False, True):
        state = net(x)
        if backward:
            state.sum().backward()
        twin = copied(net)
        assert isinstance(twin, Network)
        assert (twin.layer.penalty, twin.layer.pop_states()) == (None, ())
        assert (net.layer.pop_penalty() is None) == (regularizer is FixedPointCorrection)
        torch.testing.assert_close(twin(x), net(x))


@pytest.mark.parametrize("mode", ["training", "evaluation", "no_grad"])
@regularizers
def test_nothing_of_a_graph_outlives_the_next_forward(
    regularizer: Callable[[], Regularizer], mode: str
) -> None:
    net, x = network(regularizer()), torch.ones(3, 4)
    before = tensors_with_a_graph()
    for _ in range(5):
        net(x).sum().backward()  # what was left is not taken
    leaves = weakref.ref(net.layer.pop_states()[0]) if net.layer._pending.states else None
    net.train(mode == "training")
    with torch.set_grad_enabled(mode != "no_grad"):
        net(x)
    if mode == "training":
        net.layer.pop_penalty(), net.layer.pop_states()
    assert tensors_with_a_graph() == before
    assert leaves is None or leaves() is None


def test_the_penalties_of_one_step_are_summed_up() -> None:
    net, x = network(JacobianRegularizer()), torch.ones(3, 4)
    first, second = net(x), net(2 * x)
    total = net.layer.pop_penalty()
    assert total is not None
    single = network(JacobianRegularizer())
    parts = []
    for value in (x, 2 * x):
        single(value)
        parts.append(single.layer.pop_penalty())
    torch.testing.assert_close(total, parts[0] + parts[1])  # type: ignore[operator]
    (first.sum() + second.sum() + total).backward()
    assert net.layer.pop_penalty() is None


def test_a_discarded_forward_no_longer_counts() -> None:
    net, x = network(JacobianRegularizer(probes=200)), torch.ones(3, 4)
    net(100 * x)
    net(x)
    found = net.layer.pop_penalty()
    net(x)
    expected = net.layer.pop_penalty()
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found, expected, rtol=0.5, atol=0)
