"""What f may return, and what it must not do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import Anderson, Equilibrium, Exact, Solver, State, jacobian_norm
from equipoise.equilibrium.flat_function import evaluate
from tests.equilibrium.gradients.estimators import layers

ESTIMATORS = tuple(layers())
WEIGHT = 0.1 * torch.ones(3, 3)
every = pytest.mark.parametrize("name", ESTIMATORS)
modes = pytest.mark.parametrize("mode", ["training", "no_grad"])


def plain(z: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(z @ WEIGHT + x)


def run(name: str, f: Callable[..., Any], mode: str = "training", z0: Any = None) -> Any:
    x = torch.linspace(-1, 1, 12).reshape(4, 3).requires_grad_()
    with torch.set_grad_enabled(mode == "training"):
        return layers()[name](f, torch.zeros(4, 3) if z0 is None else z0, x)


def scaling(z: Tensor, x: Tensor) -> Tensor:
    return z.mul_(0.5) + x


def rectifying(z: Tensor, x: Tensor) -> Tensor:
    return torch.nn.functional.relu_(z) * 0.5 + x


def assigning(z: Tensor, x: Tensor) -> Tensor:
    z[:, 0] = 1.0
    return z


def through_a_view(z: Tensor, x: Tensor) -> Tensor:
    return z.view(-1, 3).detach().tanh_().view(z.shape)


@modes
@pytest.mark.parametrize("f", [scaling, rectifying, assigning, through_a_view])
@every
def test_an_f_that_writes_into_its_state_is_refused(
    name: str, f: Callable[..., Tensor], mode: str
) -> None:
    with pytest.raises(ValueError, match=r"f modifies the state .* relu_ or mul_.* z\.clone"):
        run(name, f, mode)


@modes
@every
def test_a_part_that_is_written_into_is_found_among_several(name: str, mode: str) -> None:
    def f(z: State, x: Tensor) -> State:
        return plain(z[0], x), z[1].sigmoid_()

    with pytest.raises(ValueError, match="f modifies the state"):
        run(name, f, mode, (torch.zeros(4, 3), torch.zeros(4, 2)))


@every
def test_writing_into_a_copy_is_no_fault(name: str) -> None:
    def f(z: Tensor, x: Tensor) -> Tensor:
        return z.clone().mul_(0.5) + x

    assert torch.isfinite(run(name, f)).all()


def test_the_regulariser_refuses_it_too() -> None:
    weight = torch.ones(3, requires_grad=True)
    with pytest.raises((ValueError, RuntimeError), match=r"in-place|writes into"):
        jacobian_norm(lambda z: scaling(z, weight), torch.ones(2, 3), 1)


@modes
@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (lambda z: None, TypeError, "a tensor, but got None"),
        (lambda z: {"z": z}, TypeError, "a tensor, but got a value of type dict"),
        (lambda z: 0.5, TypeError, "a tensor, but got a value of type float"),
        (lambda z: (z, None), TypeError, "a tensor, but got a value of type tuple"),
        (lambda z: z[:1], ValueError, r"takes: \(4, 3\), got \(1, 3\)"),
        (lambda z: z[:, :2], ValueError, r"takes: \(4, 3\), got \(4, 2\)"),
        (lambda z: z.T, ValueError, r"takes: \(4, 3\), got \(3, 4\)"),
        (lambda z: (z, z), ValueError, r"takes: \(4, 3\), got \(4, 3\), \(4, 3\)"),
        (lambda z: z * 0.1j, TypeError, "complex64 for a state of torch.float32"),
        (lambda z: z.double(), TypeError, "float64 for a state of torch.float32"),
    ],
)
@every
def test_what_is_no_state_is_refused(
    name: str, value: Callable[[Tensor], Any], error: type[Exception], words: str, mode: str
) -> None:
    with pytest.raises(error, match=f"^f .*{words}"):
        run(name, lambda z, x: value(z * 0.5), mode)


@modes
@pytest.mark.parametrize("form", [tuple, list])
@every
def test_one_tensor_in_a_list_stands_for_the_tensor(name: str, form: type, mode: str) -> None:
    found = run(name, lambda z, x: form((plain(z, x),)), mode)
    assert torch.equal(found, run(name, plain, mode))


@modes
@every
def test_a_tensor_stands_for_a_tuple_of_one(name: str, mode: str) -> None:
    (found,) = run(name, lambda z, x: plain(z[0], x), mode, (torch.zeros(4, 3),))
    assert torch.equal(found, run(name, plain, mode))


@modes
@every
def test_integers_are_taken_in_the_state_s_dtype(name: str, mode: str) -> None:
    def integers(z: Tensor, x: Tensor) -> Tensor:
        return (x > 0).long() - (z > 2).long()

    found = run(name, integers, mode)
    assert found.dtype == torch.float32
    assert torch.equal(found, run(name, lambda z, x: integers(z, x).float(), mode))


@every
def test_the_gradient_through_a_list_is_that_of_a_tuple(name: str) -> None:
    def gradient(form: type) -> Tensor:
        x = torch.linspace(-1, 1, 12).reshape(4, 3).requires_grad_()
        layer, z0 = layers()[name], form((torch.zeros(4, 3), torch.zeros(4, 2)))
        first, second = layer(lambda z, x: form((plain(z[0], x), 0.5 * z[1] + x[:, :2])), z0, x)
        return torch.autograd.grad(first.sum() + second.square().sum(), x)[0]

    assert torch.equal(gradient(list), gradient(tuple))


def test_lower_precision_stays_as_it_is() -> None:
    z = torch.zeros(2, 3)
    value = evaluate(lambda z: z.bfloat16(), z)
    assert isinstance(value, Tensor)
    assert value.dtype == torch.bfloat16


def test_inference_mode_evaluates_without_version_counters() -> None:
    with torch.inference_mode():
        state = Equilibrium(Anderson(), Exact())(plain, torch.zeros(4, 3), torch.zeros(4, 3))
    assert torch.equal(state, torch.zeros(4, 3))


@pytest.mark.parametrize("solver", [Anderson(max_steps=1), Anderson(max_steps=1, tol=0)])
def test_it_is_found_in_a_budget_of_one(solver: Solver) -> None:
    layer = Equilibrium(solver, Exact())
    with pytest.raises((ValueError, RuntimeError), match=r"in-place|writes into"):
        layer(scaling, torch.zeros(4, 3), torch.ones(4, 3))
