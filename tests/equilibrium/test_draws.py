"""Random numbers inside activation checkpointing: what is evaluated again draws them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from equipoise.equilibrium import Equilibrium, JacobianRegularizer, MixedStart
from equipoise.equilibrium.budget_jitter import BudgetJitter
from equipoise.equilibrium.draws import Draws
from tests.equilibrium.gradients.estimators import layers
from tests.equilibrium.systems import dense, loss, relative_error

Block = Callable[[Equilibrium, Callable[[Tensor], Tensor], Tensor], Tensor]


def each_by_itself(solve: Callable[[Tensor], Tensor], x: Tensor, **options: Any) -> Tensor:
    """Three checkpoints, which the backward pass evaluates again in the opposite order."""
    states = [checkpoint(solve, x * scale, **options) for scale in (1.0, 0.5, 2.0)]
    return states[0] + states[1].sin() + states[2].cos()


def all_in_one(solve: Callable[[Tensor], Tensor], x: Tensor, **options: Any) -> Tensor:
    """Three solves inside one checkpoint."""

    def block(x: Tensor) -> Tensor:
        return solve(x) + solve(0.5 * x).sin() + solve(2.0 * x).cos()

    state: Tensor = checkpoint(block, x, **options)
    return state


def without(solve: Callable[[Tensor], Tensor], x: Tensor, **options: Any) -> Tensor:
    return solve(x) + solve(0.5 * x).sin() + solve(2.0 * x).cos()


def layer_with(draw: str, name: str) -> Equilibrium:
    layer = layers()[name]
    if draw == "random_start":
        layer.random_start = MixedStart(0.5)
    else:
        layer.jitter = BudgetJitter(20)
        layer.solver = layer.solver.__class__(max_steps=25, tol=0)
    return layer


def gradient(arrange: Callable[..., Tensor], layer: Equilibrium, **options: Any) -> Any:
    system = dense()

    def solve(x: Tensor) -> Tensor:
        state = layer(system.f, system.z0, x)
        assert isinstance(state, Tensor)
        return state

    value = loss(arrange(solve, system.x, **options))
    value.backward()
    return tuple(source.grad for source in system.sources)


@pytest.mark.parametrize("draw", ["random_start", "jitter"])
@pytest.mark.parametrize("arrange", [each_by_itself, all_in_one])
@pytest.mark.parametrize("name", ["exact", "phantom", "shine", "reversible"])
def test_the_gradient_is_that_without_checkpointing(
    name: str, arrange: Callable[..., Tensor], draw: str
) -> None:
    plain, layer = layer_with(draw, name), layer_with(draw, name)
    expected = gradient(without, plain)
    found = gradient(arrange, layer, use_reentrant=False)
    assert relative_error(found, expected) < 1e-12
    drawing = layer.random_start or layer.jitter
    assert drawing is not None
    assert drawing.draws.count == 3  # a resumed run goes on there


@pytest.mark.parametrize("arrange", [each_by_itself, all_in_one])
def test_the_reentrant_kind_draws_the_same(arrange: Callable[..., Tensor]) -> None:
    """Its forward runs without a graph; unrolled is the one that gives the same values then."""
    layer = layer_with("random_start", "unrolled")
    expected = gradient(without, layer_with("random_start", "unrolled"))
    assert relative_error(gradient(arrange, layer, use_reentrant=True), expected) < 1e-12


def test_without_a_random_state_the_latest_numbers_are_repeated() -> None:
    def one(solve: Callable[[Tensor], Tensor], x: Tensor, **options: Any) -> Tensor:
        state: Tensor = checkpoint(solve, x, **options) if options else solve(x)
        return state

    options = {"use_reentrant": False, "preserve_rng_state": False}
    found = gradient(one, layer_with("random_start", "phantom"), **options)
    expected = gradient(one, layer_with("random_start", "phantom"))
    assert relative_error(found, expected) < 1e-12


def test_the_penalty_inside_a_checkpoint() -> None:
    """Its probes are drawn again, and what the second evaluation leaves is not added."""

    def run(checkpointed: bool) -> tuple[tuple[Tensor, ...], Equilibrium]:
        system, layer = dense(), layers()["phantom"]
        layer.regularizer = JacobianRegularizer(probability=0.7)

        def solve(x: Tensor) -> Tensor:
            state = layer(system.f, system.z0, x)
            assert isinstance(state, Tensor)
            return state

        for _ in range(3):
            options = {"use_reentrant": False}
            state = checkpoint(solve, system.x, **options) if checkpointed else solve(system.x)
            penalty = layer.pop_penalty()
            (loss(state) + (0.0 if penalty is None else penalty)).backward()
            assert layer.penalty is None
        return tuple(source.grad for source in system.sources), layer  # type: ignore[misc]

    (found, layer), (expected, _) = run(True), run(False)
    assert relative_error(found, expected) < 1e-12
    assert layer.regularizer is not None
    assert layer.regularizer.draws.count == 3


def test_the_global_generator_is_left_alone_outside_of_checkpoints() -> None:
    before = torch.get_rng_state()
    Draws().generator()
    assert torch.equal(torch.get_rng_state(), before)
