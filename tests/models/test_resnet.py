"""The explicit baseline: shapes, and parameters near those of MDEQ's size of the same name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from equipoise.models import MDEQ, ResNet


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("image_size", [8, 32, 224])
@pytest.mark.parametrize("size", ["auto", "tiny", "small", "large", "xl"])
def test_parameters_are_comparable_to_those_of_mdeq(image_size: int, size: str) -> None:
    classes = 1000 if image_size == 224 else 10
    with torch.device("meta"):
        explicit = ResNet(classes=classes, image_size=image_size, size=size)
        implicit = MDEQ(nn.Identity(), classes=classes, image_size=image_size, size=size)
    assert 0.7 < count(explicit) / count(implicit) < 1.3


def test_thumbnail_large_is_the_eighteen_layer_network() -> None:
    with torch.device("meta"):
        network = ResNet(classes=10, image_size=32)
    assert count(network) == 11_173_962


@pytest.mark.parametrize(("image_size", "channels"), [(8, 1), (32, 3), (96, 3)])
def test_logits_and_gradients(image_size: int, channels: int) -> None:
    network = ResNet(classes=7, image_size=image_size, image_channels=channels, size="tiny")
    logits = network(torch.randn(2, channels, image_size, image_size))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_unknown_size() -> None:
    with pytest.raises(ValueError, match="no size 'huge'"):
        ResNet(classes=2, image_size=8, size="huge")
