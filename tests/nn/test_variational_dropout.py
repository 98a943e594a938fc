"""Variational dropout: whole channels and shared time steps, unit mean, absent when not wanted."""

from __future__ import annotations

import pytest
import torch

from equipoise.nn import apply_mask, channel_mask, sequence_mask


def test_mask_drops_whole_channels_of_a_sample_with_unit_mean() -> None:
    torch.manual_seed(0)
    mask = channel_mask(torch.zeros(400, 3, 2, 2, dtype=torch.float64), 50, 0.25)
    assert mask.shape == (400, 50, 1, 1)
    assert mask.dtype == torch.float64
    assert set(mask.unique().tolist()) == {0.0, 1 / 0.75}
    assert abs(mask.mean().item() - 1) < 0.02


def test_half_precision_stays() -> None:
    assert channel_mask(torch.zeros(2, 1, dtype=torch.bfloat16), 4, 0.5).dtype == torch.bfloat16


def test_the_mask_follows_the_device() -> None:
    assert channel_mask(torch.zeros(2, 1, device="meta"), 4, 0.5).device.type == "meta"


def test_without_mask_features_are_untouched() -> None:
    features = torch.randn(2, 3, 4, 4)
    assert apply_mask(features, None) is features
    mask = torch.tensor([0.0, 1.0, 2.0]).reshape(1, 3, 1, 1)
    assert torch.equal(apply_mask(features, mask), features * mask)


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_impossible_probability(probability: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        channel_mask(torch.zeros(1, 1), 1, probability)


def test_a_mask_has_mean_one_and_two_values() -> None:
    torch.manual_seed(0)
    mask = sequence_mask(torch.zeros(1, dtype=torch.float64), (50, 1, 400), 0.2)
    assert mask.dtype == torch.float64
    assert set(mask.unique().tolist()) == {0.0, 1.25}
    assert mask.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_a_probability_outside_its_range_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        sequence_mask(torch.zeros(1), (1,), probability)
