"""The stem: its stride, its projection, and the zero state below it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from equipoise.models.mdeq.stem import Stem, zero_state


@pytest.mark.parametrize("halvings", [0, 1, 2, 3, 4])
def test_each_halving_halves(halvings: int) -> None:
    stem = Stem(3, 8, halvings, branches=2)
    assert stem(torch.randn(1, 3, 32, 48)).shape == (1, 8, 32 >> halvings, 48 >> halvings)
    assert len(stem.layers) == max(2, halvings)


@pytest.mark.parametrize(
    ("halvings", "branches", "has_projection"),
    [(0, 1, False), (0, 2, False), (0, 3, True), (1, 1, True), (2, 2, True)],
)
def test_projection(halvings: int, branches: int, has_projection: bool) -> None:
    projection = Stem(3, 8, halvings, branches).projection
    assert isinstance(projection, nn.Identity) != has_projection


def test_zero_state_follows_the_injection() -> None:
    injection = torch.ones(2, 4, 12, 8, dtype=torch.float64)
    state = zero_state(injection, (4, 6, 10))
    assert [tuple(z.shape) for z in state] == [(2, 4, 12, 8), (2, 6, 6, 4), (2, 10, 3, 2)]
    assert all(z.dtype == torch.float64 and not z.any() for z in state)


def test_zero_state_is_float32_under_autocast() -> None:
    injection = torch.ones(1, 4, 2, 2, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert zero_state(injection, (4,))[0].dtype == torch.float32
    assert zero_state(injection, (4,))[0].dtype == torch.bfloat16
