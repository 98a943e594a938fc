"""Start states."""

from __future__ import annotations

import pytest
import torch

from equipoise.equilibrium import mixed_start


def test_some_samples_start_at_zero_and_the_rest_at_random() -> None:
    generator = torch.Generator().manual_seed(0)
    like = (torch.ones(400, 2, 3), torch.ones(400, 5, dtype=torch.float64))
    first, second = mixed_start(like, 0.25, generator)
    noisy = (first != 0).flatten(1).any(dim=1)
    assert torch.equal(noisy, (second != 0).any(dim=1))
    assert 0.15 < noisy.float().mean() < 0.35
    assert abs(first[noisy].std() - 1.0) < 0.1
    assert second.dtype == torch.float64


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (1.0, 50)])
def test_the_ends_of_the_range(fraction: float, expected: int) -> None:
    start = mixed_start(torch.ones(50, 4), fraction)
    assert isinstance(start, torch.Tensor)
    assert int((start != 0).any(dim=1).sum()) == expected


def test_the_same_generator_gives_the_same_start() -> None:
    draws = [mixed_start(torch.ones(8, 4), 0.5, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)  # type: ignore[arg-type]


def test_a_fraction_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="noise_fraction"):
        mixed_start(torch.ones(2, 2), 1.5)
