"""A stratified split divides every class in proportion."""

from __future__ import annotations

import pytest
import torch

from equipoise.data.sampling import stream
from equipoise.data.splits import stratified_split


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.1, 0.5, 0.9])
def test_every_row_is_in_one_part_and_classes_keep_their_shares(fraction: float) -> None:
    labels = torch.randint(0, 7, (1003,), generator=stream(0))
    rest, held = stratified_split(labels, fraction, stream(1))
    assert torch.equal(torch.cat([rest, held]).sort().values, torch.arange(1003))
    assert len(held) == round(fraction * 1003)
    shares = torch.bincount(labels[held], minlength=7) - fraction * torch.bincount(labels)
    assert shares.abs().max() <= 1.5


def test_the_seed_decides_and_neighbours_are_not_sampled_in_step() -> None:
    labels = torch.arange(1000) % 10
    held = [stratified_split(labels, 0.2, stream(seed))[1] for seed in (0, 0, 1)]
    assert torch.equal(held[0], held[1])
    assert not torch.equal(held[0], held[2])
    assert len(held[0].diff().unique()) > 3
