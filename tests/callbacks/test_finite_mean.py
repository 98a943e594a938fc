"""The running mean of scalars."""

from __future__ import annotations

import math

import pytest
import torch

from equipoise.callbacks.finite_mean import COMPACT_EVERY, FiniteMean


@pytest.mark.parametrize("count", [1, COMPACT_EVERY - 1, COMPACT_EVERY, 3 * COMPACT_EVERY + 5])
def test_is_the_mean_of_what_was_added(count: int) -> None:
    values = torch.rand(count)
    mean = FiniteMean()
    for value in values:
        mean.add(value)
    assert mean.mean().item() == pytest.approx(values.mean().item())


def test_keeps_a_bounded_number_of_tensors() -> None:
    mean = FiniteMean()
    for _ in range(10 * COMPACT_EVERY):
        mean.add(torch.ones(()))
    assert len(mean.pending) < COMPACT_EVERY


def test_leaves_out_what_is_not_finite() -> None:
    mean = FiniteMean()
    for value in (1.0, math.nan, math.inf, 3.0):
        mean.add(value)
    assert mean.mean().item() == 2.0


def test_nothing_finite_gives_nan() -> None:
    mean = FiniteMean()
    assert math.isnan(mean.mean().item())
    mean.add(math.inf)
    assert math.isnan(mean.mean().item())


def test_absorbing_weights_by_count() -> None:
    few, many = FiniteMean(), FiniteMean()
    few.add(10.0)
    for _ in range(3):
        many.add(2.0)
    many.absorb(few)
    assert many.mean().item() == 4.0
