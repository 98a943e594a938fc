"""The weights of the two taps: norm, and drop of the earlier one alone."""

from __future__ import annotations

import pytest
import torch

from equipoise.models.trellisnet.weight import TapWeight, row_norms, tap_linear


@pytest.mark.parametrize("normalised", [False, True])
def test_a_weight_keeps_its_first_value(normalised: bool) -> None:
    given = torch.randn(4, 6)
    torch.testing.assert_close(TapWeight(given, normalised=normalised, drop=0.5).eval()(), given)


def test_rows_have_their_length_whatever_is_dropped() -> None:
    torch.manual_seed(0)
    weight = TapWeight(torch.randn(4, 20), normalised=True, drop=0.5)
    torch.testing.assert_close(row_norms(weight()), weight.length.detach())


def test_the_earlier_tap_alone_is_dropped_and_scaled_up() -> None:
    torch.manual_seed(0)
    given = torch.randn(50, 40)
    dropped = TapWeight(given, normalised=False, drop=0.25)()
    torch.testing.assert_close(dropped[:, 20:], given[:, 20:])
    gone = dropped[:, :20] == 0
    assert gone.float().mean().item() == pytest.approx(0.25, abs=0.05)
    torch.testing.assert_close(dropped[:, :20][~gone], given[:, :20][~gone] / 0.75)


def test_a_map_starts_without_a_bias() -> None:
    layer = tap_linear(3, 5, bias=True, normalised=True, drop=0.0)
    assert layer.weight().shape == (5, 6)
    assert not layer.bias.any()
    assert tap_linear(3, 5, bias=False, normalised=True, drop=0.0).bias is None


def test_a_probability_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="weight_drop lies in"):
        TapWeight(torch.ones(2, 2), normalised=True, drop=1.0)
