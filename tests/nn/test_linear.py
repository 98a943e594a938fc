"""Linear maps with the published first weights."""

from __future__ import annotations

import torch
from torch import nn

from equipoise.nn import NormalisedLinear, linear


def test_a_plain_map_is_drawn_small_and_a_normalised_one_keeps_its_first_weights() -> None:
    torch.manual_seed(0)
    plain = linear(200, 300)
    assert isinstance(plain, nn.Linear)
    assert 0.009 < plain.weight.std() < 0.011
    assert not plain.bias.any()
    normalised = linear(200, 300, weight_norm=True)
    assert isinstance(normalised, NormalisedLinear)
    assert 0.03 < normalised.weight().std() < 0.05
    assert not normalised.bias.any()


def test_a_map_may_have_no_bias() -> None:
    assert linear(2, 3, bias=False).bias is None
    assert linear(2, 3, bias=False, weight_norm=True).bias is None
