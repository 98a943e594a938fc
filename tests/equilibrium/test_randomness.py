"""Counted draws, start states, the budget's jitter, and replayed random states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from equipoise.equilibrium import (
    Equilibrium,
    FixedPoint,
    JacobianFree,
    JacobianRegularizer,
    MixedStart,
    State,
    mixed_start,
    zero_start,
)
from equipoise.equilibrium.randomness import BudgetJitter, Draws, RandomState
from tests.equilibrium.gradients.estimators import layers
from tests.equilibrium.systems import dense, loss, relative_error


def recording_layer(random_start: float = 0.0) -> tuple[Equilibrium, list[Tensor]]:
    """A layer on which one evaluation is spent, and the starts that its solves had."""
    layer = Equilibrium(FixedPoint(max_steps=1, tol=0.0), JacobianFree(), random_start=random_start)
    return layer, []


def solve(layer: Equilibrium, starts: list[Tensor], z0: Tensor) -> None:
    def f(z: Tensor) -> Tensor:
        starts.append(z)
        return 0.5 * z

    with torch.no_grad():
        layer(f, z0)


def test_some_samples_keep_their_start_and_the_rest_is_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    z0 = (torch.full((400, 2, 3), 7.0), torch.full((400, 5), 7.0, dtype=torch.float64))
    first, second = mixed_start(z0, 0.25, generator)
    noisy = (first != 7).flatten(1).any(dim=1)
    assert torch.equal(noisy, (second != 7).any(dim=1))
    assert 0.15 < noisy.float().mean() < 0.35
    assert abs(first[noisy].std() - 1.0) < 0.1
    assert abs(first[noisy].mean()) < 0.1
    assert second.dtype == torch.float64


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (1.0, 50)])
def test_the_ends_of_the_range(fraction: float, expected: int) -> None:
    start = mixed_start(torch.zeros(50, 4), fraction)
    assert isinstance(start, Tensor)
    assert int((start != 0).any(dim=1).sum()) == expected


def test_the_same_generator_gives_the_same_start() -> None:
    draws = [mixed_start(torch.ones(8, 4), 0.5, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)  # type: ignore[arg-type]


@pytest.mark.parametrize("fraction", [-0.1, 1.5])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="noise_fraction"):
        mixed_start(torch.ones(2, 2), fraction)
    with pytest.raises(ValueError, match="noise_fraction"):
        Equilibrium(FixedPoint(), JacobianFree(), random_start=fraction)


@pytest.mark.parametrize("z0", [torch.ones(2, 3), (torch.ones(2, 3), torch.ones(2, 1))])
def test_zero_start_keeps_the_form(z0: State) -> None:
    start = zero_start(z0)
    assert isinstance(start, tuple) == isinstance(z0, tuple)
    assert all(float(part.abs().sum()) == 0 for part in start)


def test_a_layer_starts_from_noise_in_training_only() -> None:
    layer, starts = recording_layer(random_start=1.0)
    z0 = torch.zeros(4, 3)
    solve(layer, starts, z0)
    solve(layer, starts, z0)
    solve(layer.eval(), starts, z0)
    assert not torch.equal(starts[0], starts[1])
    assert float(starts[0].abs().min()) > 0
    assert torch.equal(starts[2], z0)


def test_the_noise_goes_on_where_a_state_dict_left_it() -> None:
    layer, starts = recording_layer(random_start=0.5)
    z0 = torch.zeros(64, 3)
    solve(layer, starts, z0)
    saved = layer.state_dict()
    solve(layer, starts, z0)
    resumed, again = recording_layer(random_start=0.5)
    resumed.load_state_dict(saved)
    solve(resumed, again, z0)
    assert torch.equal(again[0], starts[1])


def test_the_noise_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    MixedStart(0.5)(torch.zeros(3, 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_rule_replaces_the_start_in_both_modes() -> None:
    layer, starts = recording_layer(random_start=1.0)
    layer.start = zero_start
    for mode in (True, False):
        solve(layer.train(mode), starts, torch.ones(2, 3))
    assert [float(start.abs().sum()) for start in starts] == [0.0, 0.0]


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


def test_every_number_up_to_the_width_is_as_likely() -> None:
    jitter = BudgetJitter(4)
    drawn = [jitter.draw() for _ in range(2000)]
    counts = [drawn.count(number) for number in range(5)]
    assert sum(counts) == 2000
    assert sum((count - 400) ** 2 / 400 for count in counts) < 18.5  # chi squared, p = 0.001


def test_equal_seeds_agree_and_others_do_not() -> None:
    def draws(seed: int) -> list[int]:
        jitter = BudgetJitter(9, seed)
        return [jitter.draw() for _ in range(20)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_a_negative_width_is_refused() -> None:
    with pytest.raises(ValueError, match="jitter"):
        BudgetJitter(-1)


CPU = torch.device("cpu")


def test_random_numbers_repeat_and_the_callers_go_on() -> None:
    torch.manual_seed(3)
    state = RandomState.capture(CPU)
    first = torch.rand(4)
    before = torch.get_rng_state()
    with state.restored():
        assert torch.equal(torch.rand(4), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_autocast_repeats_both_ways() -> None:
    weight, x = torch.ones(2, 2), torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = RandomState.capture(CPU)
    outside = RandomState.capture(CPU)
    with inside.restored():
        assert (weight @ x).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16), outside.restored():
        assert (weight @ x).dtype == torch.float32
