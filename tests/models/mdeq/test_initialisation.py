"""The first weights: N(0, 0.01) everywhere but in normalised convolutions and linear layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from equipoise.models import MDEQ
from equipoise.models.mdeq.convolution import WeightNorm


def network(weight_norm: WeightNorm = "published") -> MDEQ:
    torch.manual_seed(0)
    return MDEQ(nn.Identity(), classes=10, image_size=32, size="tiny", weight_norm=weight_norm)


def test_plain_convolutions_and_biases() -> None:
    model = network()
    for convolution in (model.stem.layers[1].conv, model.cell.fusion.paths[1]["0"][0].conv):
        assert abs(convolution.weight.std().item() / 0.01 - 1) < 0.1
    head = model.heads["logits"]
    biases = torch.cat([head.final.conv.bias, head.down[0].conv.bias])
    assert abs(biases.std().item() / 0.01 - 1) < 0.15


def test_normalised_convolutions_keep_the_uniform_draw() -> None:
    weight = network().cell.branches[0].blocks[0].conv2.weight
    fan_in = weight.direction[0].numel()
    assert abs(weight().std().item() * math.sqrt(3 * fan_in) - 1) < 0.05
    torch.testing.assert_close(weight.length.flatten(), weight.direction.flatten(1).norm(dim=1))


def test_without_weight_norm_blocks_are_small_too() -> None:
    weight = network("none").cell.branches[0].blocks[0].conv2.weight
    assert abs(weight.std().item() / 0.01 - 1) < 0.05


@pytest.mark.parametrize("momentum", [0.1, 0.01])
def test_momentum_reaches_every_batch_norm(momentum: float) -> None:
    model = MDEQ(
        nn.Identity(), classes=10, mask_classes=3, image_size=32, batch_norm_momentum=momentum
    )
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {momentum}
    # two in the stem and one behind it, three a bottleneck and its shortcut, three down, two last
    assert len(norms) == 3 + 4 * 4 + 3 + 2
