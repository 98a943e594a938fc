"""The explicit baseline: shapes, and parameters near those of MDEQ's size of the same name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet

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


@pytest.mark.parametrize("size", ["resnet18", "resnet34", "resnet50"])
def test_a_published_size_has_the_parameters_of_torchvision(size: str) -> None:
    with torch.device("meta"):
        theirs = getattr(resnet, size)()
        ours = ResNet(classes=None, image_size=224, size=size, stem="large")
        classifier = ResNet(classes=1000, image_size=224, size=size)
    assert ours.features == theirs.fc.in_features
    assert count(ours) == count(theirs) - count(theirs.fc)
    assert count(classifier) == count(theirs)


@pytest.mark.parametrize(
    ("stem", "image_size", "side"),
    [
        ("small", 32, 32),
        ("small", 96, 96),
        ("small_pooled", 32, 16),
        ("large", 32, 8),
        ("auto", 64, 64),
        ("auto", 96, 24),
    ],
)
def test_a_stem_keeps_or_halves_the_image(stem: str, image_size: int, side: int) -> None:
    network = ResNet(classes=None, image_size=image_size, size="resnet18", stem=stem)
    assert network.stem(torch.zeros(1, 3, image_size, image_size)).shape == (1, 64, side, side)


def test_unknown_stem() -> None:
    with pytest.raises(ValueError, match="no stem 'huge'; choose auto, small"):
        ResNet(classes=2, image_size=8, stem="huge")


def test_a_network_without_classes_gives_what_its_classifier_reads() -> None:
    torch.manual_seed(0)
    network = ResNet(classes=5, image_size=8, image_channels=1, size="tiny").eval()
    encoder = ResNet(classes=None, image_size=8, image_channels=1, size="tiny").eval()
    encoder.load_state_dict(network.state_dict(), strict=False)
    image = torch.randn(3, 1, 8, 8)
    features = encoder(image)
    assert features.shape == (3, encoder.features)
    torch.testing.assert_close(network.classifier(features), network(image))


@pytest.mark.parametrize("size", ["resnet18", "resnet50"])
def test_blocks_that_begin_as_the_identity(size: str) -> None:
    torch.manual_seed(0)
    for zero in (True, False):
        network = ResNet(
            classes=None, image_size=8, size=size, stem="small", zero_init_residual=zero
        )
        block = network.stages[0][1].eval()
        state = torch.rand(1, block.conv1.in_channels, 8, 8)
        assert torch.equal(block(state), state) is zero
