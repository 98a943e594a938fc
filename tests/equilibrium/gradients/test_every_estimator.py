"""What holds for every estimator, whatever its formula."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from equipoise.equilibrium import Equilibrium, State
from equipoise.equilibrium.state import parts
from tests.equilibrium.gradients.estimators import layers
from tests.equilibrium.systems import SYSTEMS, System, dense, joined, loss, relative_error

ESTIMATORS = tuple(layers())
ONCE = ("exact", "neumann", "shine", "shine_refined", "reversible")
"""Estimators whose backward is not a graph that could be differentiated again."""

every = pytest.mark.parametrize("name", ESTIMATORS)


def solve(layer: Equilibrium, system: System) -> State:
    state: State = layer(system.f, system.z0, system.x)
    return state


def gradient(layer: Equilibrium, system: System, scale: float = 1.0) -> tuple[Tensor, ...]:
    return torch.autograd.grad(scale * loss(solve(layer, system)), system.sources)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@settings(max_examples=8, deadline=None)
@given(exponent=st.floats(-8, 8))
def test_the_gradient_scales_with_the_loss(name: str, dtype: torch.dtype, exponent: float) -> None:
    scale = 10.0**exponent
    system = dense(dtype)
    expected = tuple(scale * part for part in gradient(layers()[name], system))
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert relative_error(gradient(layers()[name], system, scale), expected) < tolerance


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "auto"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_sample_has_the_same_gradient_alone_and_in_a_batch(name: str, system: str) -> None:
    together = SYSTEMS[system]()
    rows = torch.autograd.grad(loss(solve(layers()[name], together)), together.x)[0]
    state = solve(layers()[name], together)
    alone = together.rows(slice(1, 2))
    cotangents = torch.autograd.grad(loss(state), parts(state))
    lone_state = solve(layers()[name], alone)
    found = torch.autograd.grad(parts(lone_state), alone.x, [c[1:2] for c in cotangents])[0]
    torch.testing.assert_close(found[0], rows[1], rtol=1e-6, atol=1e-9)


@every
def test_two_forwards_before_one_backward(name: str) -> None:
    system, other = dense(), dense()
    other.x.data.mul_(0.3)
    both = System(system.f, system.z0, other.x, system.parameters)
    layer = layers()[name]
    total = loss(solve(layer, system)) + loss(solve(layer, both))
    found = torch.autograd.grad(total, (*system.sources, other.x))
    one, two = gradient(layers()[name], system), gradient(layers()[name], both)
    assert relative_error(found, (one[0] + two[0], one[1], two[1])) < 1e-9


@every
def test_two_backwards_on_a_retained_graph_are_identical(name: str) -> None:
    system = dense()
    value = loss(solve(layers()[name], system))
    first = torch.autograd.grad(value, system.sources, retain_graph=True)
    second = torch.autograd.grad(value, system.sources)
    assert torch.equal(joined(first), joined(second))


@pytest.mark.parametrize("name", ONCE)
def test_second_derivatives_are_refused(name: str) -> None:
    system = dense()
    value = loss(solve(layers()[name], system))
    with pytest.raises(RuntimeError, match="second derivatives through this gradient estimator"):
        torch.autograd.grad(value, system.sources, create_graph=True)


class Box:
    """What a graph keeps instead of a tensor, so that its end can be seen."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()


@every
@pytest.mark.parametrize("backward", [False, True])
def test_the_graph_is_freed_with_the_state(name: str, backward: bool) -> None:
    system, layer = dense(), layers()[name]
    boxes: list[weakref.ref[Box]] = []

    def pack(tensor: Tensor) -> Box:
        box = Box(tensor)
        boxes.append(weakref.ref(box))
        return box

    gc.disable()  # reference counting alone has to do it
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
            states = [solve(layer, system) for _ in range(2)]
            if backward:
                sum(loss(state) for state in states).backward()  # type: ignore[union-attr]
        assert boxes
        del states
        assert [box() for box in boxes] == [None] * len(boxes)
    finally:
        gc.enable()


@every
def test_gradients_are_written_to_leaves_only_once(name: str) -> None:
    system = dense()
    expected = gradient(layers()[name], system)
    loss(solve(layers()[name], system)).backward()
    found = tuple(source.grad for source in system.sources)
    assert all(part is not None for part in found)
    assert relative_error(found, expected) < 1e-12  # type: ignore[arg-type]


class Network(nn.Module):
    """A small model around an equilibrium layer."""

    def __init__(self, layer: Equilibrium) -> None:
        super().__init__()
        self.encode = nn.Linear(6, 8)
        self.mix = nn.Linear(8, 8)
        self.layer = layer
        nn.init.normal_(self.mix.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        injection = self.encode(x)
        state: Tensor = self.layer(self.f, torch.zeros_like(injection), injection)
        return state

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.mix(z) + x)


def network(name: str) -> tuple[Network, Tensor]:
    torch.manual_seed(0)
    return Network(layers()[name]), torch.randn(5, 6)


@every
def test_a_deep_copy_trains_alone(name: str) -> None:
    model, x = network(name)
    model(x).square().sum().backward()
    twin = copy.deepcopy(model)
    before = [parameter.grad.clone() for parameter in model.parameters()]  # type: ignore[union-attr]
    twin.zero_grad()
    twin(x).square().sum().backward()
    for own, other, old in zip(model.parameters(), twin.parameters(), before, strict=True):
        assert own.grad is not None
        assert torch.equal(own.grad, old)
        torch.testing.assert_close(other.grad, old, rtol=1e-3, atol=1e-5)


@every
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_values_without_gradients(name: str, mode: type) -> None:
    model, x = network(name)
    expected = model(x)
    with mode():
        state = model(x)
    assert not state.requires_grad
    torch.testing.assert_close(state, expected.detach(), rtol=1e-4, atol=1e-5)
    assert model.layer.report is not None
    assert model.layer.report.backward is None


@every
def test_gradients_in_evaluation_mode(name: str) -> None:
    model, x = network(name)
    x.requires_grad_()
    found = torch.autograd.grad(model.eval()(x).square().sum(), x)[0]
    expected = torch.autograd.grad(model.train()(x).square().sum(), x)[0]
    torch.testing.assert_close(found, expected, rtol=0.3, atol=1e-3)


@every
def test_autocast_agrees_with_full_precision(name: str) -> None:
    model, x = network(name)
    model(x).square().sum().backward()
    full = [parameter.grad.clone() for parameter in model.parameters()]  # type: ignore[union-attr]
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = model(x)
        value = state.float().square().sum()
    value.backward()
    for parameter, expected in zip(model.parameters(), full, strict=True):
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        error = (parameter.grad - expected).norm() / expected.norm()
        # The inverse that shine shares is built of differences, so it feels rounding most.
        assert error < (0.2 if name == "shine" else 0.05)


@every
def test_the_state_of_a_part_that_the_loss_leaves_out(name: str) -> None:
    system = SYSTEMS["two_branches"]()
    fine, _ = solve(layers()[name], system)
    found = torch.autograd.grad(
        fine.square().sum(), system.sources, allow_unused=True, materialize_grads=True
    )
    assert all(torch.isfinite(part).all() for part in found)
    assert all(part.abs().max() > 0 for part in (found[0], found[2]))


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "reversible"])
def test_torch_func_gives_the_same_gradient(name: str) -> None:
    system = dense()
    (weight,) = system.parameters

    def value(weight: Tensor, x: Tensor) -> Tensor:
        return loss(layers()[name](lambda z, x: torch.tanh(z @ weight.T + x), system.z0, x))

    found = torch.func.grad(value, argnums=(0, 1))(weight.detach(), system.x.detach())
    expected = torch.autograd.grad(value(weight, system.x), system.sources)
    assert relative_error(found, expected) < 1e-9


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "reversible"])
def test_torch_func_takes_a_state_of_several_tensors(name: str) -> None:
    system = SYSTEMS["two_branches"]()
    forms = []

    def value(x: Tensor) -> Tensor:
        state = layers()[name](system.f, system.z0, x)
        forms.append([part.shape for part in state])
        return loss(state)

    found = torch.func.grad(value)(system.x.detach())
    (expected,) = torch.autograd.grad(value(system.x), system.x)
    assert relative_error((found.detach(),), (expected,)) < 1e-9
    assert forms == [[(3, 8), (3, 5, 1)]] * 2


@pytest.mark.parametrize("name", ["exact", "neumann", "shine", "shine_refined"])
def test_torch_func_refuses_second_derivatives(name: str) -> None:
    system = dense()
    (weight,) = system.parameters

    def value(weight: Tensor) -> Tensor:
        x = system.x.detach()
        return loss(layers()[name](lambda z, x: torch.tanh(z @ weight.T + x), system.z0, x))

    def squared_slope(weight: Tensor) -> Tensor:
        return torch.func.grad(value)(weight).square().sum()

    with pytest.raises(RuntimeError, match="second derivatives through this gradient estimator"):
        torch.func.grad(squared_slope)(weight.detach())


def test_torch_func_is_refused_by_the_reversible_estimator() -> None:
    system = dense()
    with pytest.raises(ValueError, match="use unrolled"):
        torch.func.grad(lambda x: loss(layers()["reversible"](system.f, system.z0, x)))(
            system.x.detach()
        )


SOLVING = tuple(name for name in ESTIMATORS if name not in ("unrolled", "reversible"))


def leaving_its_domain(z: Tensor, x: Tensor) -> Tensor:
    """A square root in the second sample, which is defined at 0 alone, and 1 + x in the others."""
    spoiled = torch.tensor([[0.0], [1.0], [0.0]], dtype=z.dtype)[: len(z)]
    return x + 1 + spoiled * (torch.sqrt(1 - 4 * z * spoiled) - 1 - x)


def undefined(z: Tensor, x: Tensor) -> Tensor:
    """Nowhere finite in the second sample."""
    spoiled = torch.tensor([[0.0], [torch.inf], [0.0]], dtype=z.dtype)
    return 0.5 * z + x + torch.where(spoiled > 0, z / 0.0, 0.0)


@pytest.mark.parametrize("form", ["tensor", "tuple"])
@pytest.mark.parametrize("f", [leaving_its_domain, undefined])
@pytest.mark.parametrize("name", SOLVING)
@pytest.mark.filterwarnings("ignore:.*samples did not reach")
def test_samples_whose_f_is_not_finite_keep_the_solver_s_iterate(
    name: str, f: Callable[[Tensor, Tensor], Tensor], form: str
) -> None:
    x = torch.linspace(0.2, 0.9, 12, dtype=torch.float64).reshape(3, 4).requires_grad_()
    z0, layer = torch.zeros_like(x), layers()[name]

    def paired(z: State, x: Tensor) -> State:
        return f(z[0], x), z[1] * 0.5 + x

    if form == "tensor":
        with torch.no_grad():
            solved = layer(f, z0, x)
        states: tuple[tuple[Tensor, Tensor], ...] = ((layer(f, z0, x), solved),)
    else:
        with torch.no_grad():
            solved = layer(paired, (z0, z0), x)
        states = tuple(zip(layer(paired, (z0, z0), x), solved, strict=True))
    for state, kept in states:
        assert torch.isfinite(state).all()
        if f is undefined:
            assert torch.equal(state[1], kept[1])
        torch.testing.assert_close(state[::2], kept[::2], rtol=1e-6, atol=1e-6)
