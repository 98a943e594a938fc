"""The fusion: sizes and sums of all paths, and the structure of each."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from equipoise.models.mdeq.fusion import Fusion, downward_path, post_fusion, upward_path
from equipoise.nn import NormalisedConv2d


def test_upward_path_normalises_before_it_upsamples() -> None:
    path = upward_path(6, 4, doublings=2, groups=2, affine=False, weight_norm=False)
    features = torch.randn(2, 6, 3, 3)
    normalised = functional.group_norm(path.conv(features), 2)
    expected = normalised.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(path(features), expected)


def test_downward_path_widens_last_and_has_no_last_relu() -> None:
    path = downward_path(4, 8, halvings=3, groups=2, affine=True, weight_norm=False)
    assert [stage.conv.out_channels for stage in path] == [4, 4, 8]
    assert [isinstance(stage[-1], nn.ReLU) for stage in path] == [True, True, False]
    output = path(torch.randn(2, 4, 16, 8))
    assert output.shape == (2, 8, 2, 1)
    assert output.min() < 0


def test_fusion_sums_every_path() -> None:
    torch.manual_seed(0)
    fusion = Fusion((4, 6, 8), groups=2, affine=True)
    b = tuple(torch.randn(2, channels, 8 >> i, 8 >> i) for i, channels in enumerate((4, 6, 8)))
    y = fusion(b)
    assert [value.shape for value in y] == [value.shape for value in b]
    torch.testing.assert_close(y[1], fusion.paths[1]["0"](b[0]) + b[1] + fusion.paths[1]["2"](b[2]))


def test_post_fusion_has_half_the_groups() -> None:
    layer = post_fusion(8, 4, affine=False, weight_norm=True)
    features = torch.randn(2, 8, 3, 3)
    projected = functional.conv2d(features.relu(), layer.conv.weight())
    torch.testing.assert_close(layer(features), functional.group_norm(projected, 2))


@pytest.mark.parametrize("weight_norm", [True, False])
def test_weight_norm_of_all_paths(weight_norm: bool) -> None:
    fusion = Fusion((4, 6, 8), groups=2, affine=True, weight_norm=weight_norm)
    assert {isinstance(m, NormalisedConv2d) for m in fusion.modules() if hasattr(m, "stride")} == {
        weight_norm
    }
    b = tuple(torch.randn(2, channels, 8 >> i, 8 >> i) for i, channels in enumerate((4, 6, 8)))
    assert [value.shape for value in fusion(b)] == [value.shape for value in b]
