"""The reversible estimator against autograd through the same coupled steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.equilibrium import Equilibrium, FixedPoint, Reversible, State
from equipoise.equilibrium.state import parts
from tests.equilibrium.systems import (
    SYSTEMS,
    System,
    dense,
    dense_gradient,
    loss,
    relative_error,
)


def relaxed(old: State, value: State, relaxation: float) -> State:
    pairs = zip(parts(old), parts(value), strict=True)
    mixed = tuple((1 - relaxation) * a + relaxation * b for a, b in pairs)
    return mixed if isinstance(old, tuple) else mixed[0]


def coupled(system: System, steps: int, relaxation: float) -> State:
    y = z = system.z0
    for _ in range(steps):
        y = relaxed(y, system.f(z, system.x), relaxation)
        z = relaxed(z, system.f(y, system.x), relaxation)
    return z


def gradient(system: System, estimator: Reversible) -> tuple[Tensor, ...]:
    state = Equilibrium(FixedPoint(), estimator)(system.f, system.z0, system.x)
    return torch.autograd.grad(loss(state), system.sources)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(("steps", "relaxation"), [(1, 0.8), (6, 0.8), (8, 0.5), (3, 1.5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_autograd_through_the_same_steps(
    system: str, steps: int, relaxation: float, dtype: torch.dtype
) -> None:
    problem = SYSTEMS[system](dtype)
    expected = torch.autograd.grad(loss(coupled(problem, steps, relaxation)), problem.sources)
    found = gradient(problem, Reversible(steps, relaxation))
    assert relative_error(found, expected) < (1e-8 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("system", SYSTEMS)
def test_values_are_those_of_the_steps(system: str) -> None:
    problem = SYSTEMS[system]()
    layer = Equilibrium(FixedPoint(), Reversible())
    attached = layer(problem.f, problem.z0, problem.x)
    with torch.no_grad():
        plain = layer(problem.f, problem.z0, problem.x)
    expected = coupled(problem, 6, 0.8)
    for a, b, c in zip(parts(attached), parts(plain), parts(expected), strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c)


@pytest.mark.parametrize("system", SYSTEMS)
def test_many_steps_come_to_the_implicit_gradient(system: str) -> None:
    problem = SYSTEMS[system]()
    found = gradient(problem, Reversible(steps=30, relaxation=0.5))
    assert relative_error(found, dense_gradient(problem)) < 1e-3


def test_the_report_tells_cost_residual_and_reconstruction_error() -> None:
    problem = dense(torch.float32)
    layer = Equilibrium(FixedPoint(tol=1e-2), Reversible())
    loss(layer(problem.f, problem.z0, problem.x)).backward()
    report = layer.report
    assert report is not None
    assert report.nfe == 12
    assert report.converged is not None
    assert report.converged.all()
    backward = report.backward
    assert backward is not None
    assert backward.nfe == 12
    assert backward.residual is not None
    assert backward.residual.shape == (3,)
    assert (backward.residual < 1e-9).all()


def test_the_reconstruction_error_grows_with_the_steps() -> None:
    problem = dense(torch.float32)
    errors = []
    for steps in (4, 8, 16):
        layer = Equilibrium(FixedPoint(), Reversible(steps))
        loss(layer(problem.f, problem.z0, problem.x)).backward()
        assert layer.report is not None
        assert layer.report.backward is not None
        assert layer.report.backward.residual is not None
        errors.append(float(layer.report.backward.residual.median()))
    assert errors[0] < errors[1] < errors[2]


def test_the_start_state_gets_a_gradient() -> None:
    problem = dense()
    start = torch.full_like(problem.x, 0.3).requires_grad_()
    moved = System(problem.f, start, problem.x, problem.parameters)
    expected = torch.autograd.grad(loss(coupled(moved, 3, 0.8)), start)[0]
    state = Equilibrium(FixedPoint(), Reversible(3))(problem.f, start, problem.x)
    torch.testing.assert_close(torch.autograd.grad(loss(state), start)[0], expected)


def test_tensors_captured_in_the_middle_of_a_graph_get_their_gradient() -> None:
    """f reads an encoded input and a computed weight by closure, and a leaf that both share."""
    problem = dense()
    (weight,) = problem.parameters
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def run(estimator_steps: int | None) -> tuple[Tensor, ...]:
        injection, normed = torch.sin(problem.x * scale), weight * scale

        def f(z: Tensor) -> Tensor:
            return torch.tanh(functional.linear(z, normed) + injection) * scale

        if estimator_steps is None:
            closed = System(lambda z, _: f(z), problem.z0, problem.x, ())
            state = coupled(closed, 4, 0.8)
        else:
            layer = Equilibrium(FixedPoint(), Reversible(estimator_steps))
            state = layer(f, problem.z0)
        return torch.autograd.grad(loss(state), (weight, problem.x, scale))

    assert relative_error(run(4), run(None)) < 1e-10


def test_a_leaf_behind_an_input_is_not_counted_twice() -> None:
    problem = dense()
    (weight,) = problem.parameters

    def state(estimator: Reversible | None) -> State:
        injection = problem.x @ weight
        system = System(problem.f, problem.z0, injection, ())
        if estimator is None:
            return coupled(system, 6, 0.8)
        return Equilibrium(FixedPoint(), estimator)(system.f, system.z0, injection)

    found = torch.autograd.grad(loss(state(Reversible())), problem.sources)
    expected = torch.autograd.grad(loss(state(None)), problem.sources)
    assert relative_error(found, expected) < 1e-10


class Dropping(nn.Module):
    """An f with fresh dropout in every evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 12)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(0.3 * functional.dropout(self.linear(z), 0.4) + x)


def test_random_numbers_repeat_in_the_backward_pass() -> None:
    torch.manual_seed(1)
    problem, f = dense(torch.float32), Dropping()
    layer = Equilibrium(FixedPoint(), Reversible(4))
    torch.manual_seed(2)
    state = layer(f, problem.z0, problem.x)
    after = torch.get_rng_state()
    found = torch.autograd.grad(loss(state), (*f.parameters(), problem.x))
    assert torch.equal(torch.get_rng_state(), after)
    torch.manual_seed(2)
    system = System(f, problem.z0, problem.x, ())
    expected = torch.autograd.grad(loss(coupled(system, 4, 0.8)), (*f.parameters(), problem.x))
    assert relative_error(found, expected) < 1e-5


def test_an_f_that_reads_other_parameters_later_is_refused() -> None:
    problem = dense()
    late = torch.ones(12, dtype=torch.float64, requires_grad=True)
    calls: list[None] = []

    def f(z: Tensor, x: Tensor) -> Tensor:
        calls.append(None)
        shift = late if len(calls) > 3 else late.detach()
        return torch.tanh(0.1 * z + x + shift)

    state = Equilibrium(FixedPoint(), Reversible(2))(f, problem.z0, problem.x)
    with pytest.raises(RuntimeError, match="reads other parameters"):
        loss(state).backward()


def test_memory_does_not_grow_with_the_steps() -> None:
    """Counted by the tensors that autograd saves in the forward pass."""
    problem = dense()

    def saved(steps: int) -> int:
        count = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            Equilibrium(FixedPoint(), Reversible(steps))(problem.f, problem.z0, problem.x)
        return count

    assert saved(3) == saved(30) > 0


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"relaxation": 1.0}, {"relaxation": 2.0}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"at least one step|relaxation must lie"):
        Reversible(**wrong)


def test_a_parameter_that_is_changed_before_the_backward_pass_is_refused() -> None:
    system = dense()
    state = Equilibrium(FixedPoint(), Reversible(4))(system.f, system.z0, system.x)
    with torch.no_grad():
        system.parameters[0].mul_(1.0)
    with pytest.raises(RuntimeError, match="modified in place"):
        loss(state).backward()
