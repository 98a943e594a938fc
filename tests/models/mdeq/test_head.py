"""The classification head: shapes, shortcuts, and the norms without affine parameters."""

from __future__ import annotations

import torch
from torch import nn

from equipoise.models.mdeq.head import Bottleneck, ClassificationHead


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
