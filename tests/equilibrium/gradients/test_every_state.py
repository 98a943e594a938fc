"""Every estimator on every kind of state, precision and policy for failures."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import Equilibrium, NotConvergedError, with_budget
from tests.equilibrium.gradients.estimators import layers

BATCH = 4
ESTIMATORS = tuple(layers())
POLICIES = ("raise", "warn", "fallback")


@dataclass(frozen=True)
class Kind:
    """A kind of state: how it is made of one tensor (B, 6), and the tensor of a state."""

    pack: Callable[[Tensor], Any]
    unpack: Callable[[Any], Tensor]


def _halves(make: type) -> Kind:
    return Kind(
        lambda z: make((z[:, :2], z[:, 2:].unflatten(1, (2, 2)))),
        lambda state: torch.cat([part.flatten(1) for part in state], dim=1),
    )


KINDS = {
    "tensor": Kind(lambda z: z, lambda state: state),
    "tuple": _halves(tuple),
    "list": _halves(list),
    "complex": Kind(
        lambda z: torch.complex(z[:, :3], z[:, 3:]),
        lambda state: torch.cat((state.real, state.imag), dim=1),
    ),
}
PRECISIONS = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
STATES = [
    (kind, precision)
    for kind in KINDS
    for precision in PRECISIONS
    if (kind, precision) != ("complex", "bfloat16")  # no such dtype
]


class Problem:
    """z = W z + x on 6 numbers a sample, however they are packed; W contracts."""

    def __init__(self, kind: str, precision: str) -> None:
        self.kind = KINDS[kind]
        generator = torch.Generator().manual_seed(3)
        dtype = PRECISIONS[precision]
        weight = 0.15 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
        x = torch.randn(BATCH, 6, generator=generator, dtype=torch.float64)
        self.weight = weight.to(dtype).requires_grad_()
        self.x = x.to(dtype).requires_grad_()
        self.z0 = self.kind.pack(torch.zeros_like(x, dtype=dtype))

    def f(self, state: Any, x: Tensor) -> Any:
        return self.kind.pack(self.kind.unpack(state) @ self.weight.T + x)

    def solution(self) -> tuple[Tensor, list[Tensor]]:
        """In float64: z and the gradient of its squared length."""
        weight, x = (t.detach().double().requires_grad_() for t in (self.weight, self.x))
        z = torch.linalg.solve(torch.eye(6, dtype=torch.float64) - weight, x.T).T
        return z.detach(), list(torch.autograd.grad(z.square().sum(), (weight, x)))


def solve(layer: Equilibrium, problem: Problem) -> Any:
    return layer(problem.f, problem.z0, problem.x)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("kind", "precision"), STATES)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_values_and_gradients(name: str, kind: str, precision: str, policy: Any) -> None:
    problem, layer = Problem(kind, precision), layers()[name]
    layer.on_failure = policy
    if layer.gradient.own_iteration:  # which does not iterate until a tolerance is met
        layer.solver = replace(layer.solver, tol=1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = solve(layer, problem)
    assert type(state) is type(problem.z0)
    z, expected = problem.solution()
    found = problem.kind.unpack(state)
    assert found.dtype == problem.x.dtype
    accuracy = 1e-3 if precision != "bfloat16" else 2e-2
    assert (found.detach().double() - z).norm() / z.norm() < accuracy
    gradients = torch.autograd.grad(found.double().square().sum(), (problem.weight, problem.x))
    for gradient, wanted in zip(gradients, expected, strict=True):
        direction = torch.cosine_similarity(gradient.double().flatten(), wanted.flatten(), dim=0)
        assert direction > (0.99 if name == "exact" else 0.9)
    with torch.no_grad():
        evaluated = solve(layer.eval(), problem)
    assert type(evaluated) is type(problem.z0)
    torch.testing.assert_close(problem.kind.unpack(evaluated), found.detach(), rtol=0, atol=0.1)


@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize(("kind", "precision"), STATES)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_failure_raises_whatever_the_estimator(
    name: str, kind: str, precision: str, mode: str
) -> None:
    layer, problem = layers()[name], Problem(kind, precision)
    layer.on_failure = "raise"
    layer.solver = replace(layer.solver, max_steps=2, tol=1e-9)
    layer.gradient = with_budget(layer.gradient, 2)
    with torch.set_grad_enabled(mode == "training"):
        with pytest.raises(NotConvergedError, match=r"4 of 4 samples.* 2 evaluations \(4 budget\)"):
            solve(layer.train(mode == "training"), problem)
        layer.solver = replace(layer.solver, tol=0.0)  # nothing is asked for
        solve(layer, problem)
