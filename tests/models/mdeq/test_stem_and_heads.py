"""The classification head: shapes, shortcuts, and the norms without affine parameters."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equipoise.models import MDEQ
from equipoise.models.mdeq.cell import WeightNorm
from equipoise.models.mdeq.stem_and_heads import (
    Bottleneck,
    ClassificationHead,
    SegmentationHead,
    Stem,
    zero_state,
)


def test_shortcut_is_the_identity_where_channels_agree() -> None:
    assert isinstance(Bottleneck(16, 4).shortcut, nn.Identity)
    assert isinstance(Bottleneck(15, 4).shortcut, nn.Sequential)


def test_bottleneck_norms_have_no_parameters() -> None:
    names = [name for name, _ in Bottleneck(16, 4).named_parameters()]
    assert names == ["conv1.weight", "conv2.weight", "conv3.weight"]


def test_logits_hear_every_branch() -> None:
    torch.manual_seed(0)
    head = ClassificationHead((4, 6, 8), (2, 3, 4), 20, classes=5).eval()
    z = tuple(
        torch.randn(2, channels, 8 >> i, 8 >> i, requires_grad=True)
        for i, channels in enumerate((4, 6, 8))
    )
    logits = head(z)
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in z)


def test_single_branch() -> None:
    assert ClassificationHead((4,), (2,), 6, classes=3)((torch.randn(2, 4, 8, 8),)).shape == (2, 3)


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


def states() -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    return tuple(
        torch.randn(2, channels, 8 >> i, 12 >> i, requires_grad=True)
        for i, channels in enumerate((4, 6, 8))
    )


@pytest.mark.parametrize("kernel", [1, 3])
def test_every_pixel_gets_logits_that_hear_every_branch(kernel: Any) -> None:
    head = SegmentationHead((4, 6, 8), classes=5, kernel=kernel).eval()
    z = states()
    logits = head(z)
    assert logits.shape == (2, 5, 8, 12)
    logits.square().sum().backward()
    assert all(part.grad is not None and part.grad.abs().max() > 0 for part in z)


def test_corners_of_all_branches_lie_on_each_other() -> None:
    head = SegmentationHead((4, 6, 8), classes=5).eval()
    z = states()
    whole = head(z)
    corner = head(tuple(part[..., -1:, -1:] for part in z))
    torch.testing.assert_close(whole[..., -1:, -1:], corner)


def test_a_kernel_of_three_sees_the_neighbours() -> None:
    for kernel, reach in ((1, 1), (3, 9)):
        head = SegmentationHead((4,), classes=1, kernel=kernel).eval()  # type: ignore[arg-type]
        z = torch.randn(1, 4, 8, 8, requires_grad=True)
        head((z,))[0, 0, 4, 4].backward()
        assert z.grad is not None
        assert int((z.grad[0].abs().sum(dim=0) > 0).sum()) == reach


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
