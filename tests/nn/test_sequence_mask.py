"""Masks that are shared over time."""

from __future__ import annotations

import pytest
import torch

from equipoise.nn import sequence_mask


def test_a_mask_has_mean_one_and_two_values() -> None:
    torch.manual_seed(0)
    mask = sequence_mask(torch.zeros(1, dtype=torch.float64), (50, 1, 400), 0.2)
    assert mask.dtype == torch.float64
    assert set(mask.unique().tolist()) == {0.0, 1.25}
    assert mask.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_a_probability_outside_its_range_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match=r"lies in \[0, 1\)"):
        sequence_mask(torch.zeros(1), (1,), probability)
