"""Start states."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import (
    Equilibrium,
    FixedPoint,
    JacobianFree,
    MixedStart,
    State,
    mixed_start,
    zero_start,
)


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
