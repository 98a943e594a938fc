"""Options that no recording has, against the published equations written out on published names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mdeq_recordings import assert_same
from torch import Tensor
from torch.nn import functional

from equipoise.interop.mdeq.names import published_name
from equipoise.models import MDEQ
from equipoise.models.mdeq.convolution import WeightNorm
from tests.interop.published_mdeq import small_network

GROUPS = 4


class WrittenOut:
    """The published computation, by the names of its weights."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights

    def convolve(self, h: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.weights.get(f"{name}.weight")
        if weight is None:
            v, g = self.weights[f"{name}.weight_v"], self.weights[f"{name}.weight_g"]
            weight = v * (g / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
        bias, padding = self.weights.get(f"{name}.bias"), (weight.shape[-1] - 1) // 2
        return functional.conv2d(h, weight, bias, stride, padding)

    def group_norm(self, h: Tensor, name: str, groups: int = GROUPS) -> Tensor:
        affine = (self.weights.get(f"{name}.{entry}") for entry in ("weight", "bias"))
        return functional.group_norm(h, groups, *affine)

    def batch_norm(self, h: Tensor, name: str) -> Tensor:
        entries = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(h, *(self.weights.get(f"{name}.{entry}") for entry in entries))

    def injection(self, image: Tensor, halvings: int) -> Tensor:
        layers = [("downsample.0", "downsample.1"), ("downsample.3", "downsample.4")]
        layers += [(f"downsample.DS{i}", f"downsample.DS{i}-BN") for i in range(3, halvings + 1)]
        h = image
        for index, (conv, norm) in enumerate(layers):
            stride = 2 if index < halvings else 1
            h = self.batch_norm(self.convolve(h, conv, stride), norm).relu()
        if "stage0.0.weight" in self.weights:
            h = self.batch_norm(self.convolve(h, "stage0.0"), "stage0.1").relu()
        return h

    def block(self, h: Tensor, injection: Tensor | float, name: str) -> Tensor:
        o = self.group_norm(self.convolve(h, f"{name}.conv1"), f"{name}.gn1").relu()
        o = self.group_norm(self.convolve(o, f"{name}.conv2") + injection, f"{name}.gn2") + h
        return self.group_norm(o.relu(), f"{name}.gn3")

    def f(self, z: tuple[Tensor, ...], injection: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
        branches = []
        for i, h in enumerate(z):
            for j in range(blocks[i]):
                added = injection if i == j == 0 else 0.0
                h = self.block(h, added, f"fullstage.branches.{i}.blocks.{j}")
            branches.append(h)
        if len(z) == 1:
            return branches
        return [self.fused(i, branches) for i in range(len(z))]

    def fused(self, i: int, branches: list[Tensor]) -> Tensor:
        y = sum((self.path(i, j, b) for j, b in enumerate(branches)), torch.zeros_like(branches[i]))
        post = f"fullstage.post_fuse_layers.{i}"
        return self.group_norm(
            self.convolve(y.relu(), f"{post}.conv"), f"{post}.gnorm", GROUPS // 2
        )

    def path(self, i: int, j: int, b: Tensor) -> Tensor:
        net = f"fullstage.fuse_layers.{i}.{j}.net"
        if j > i:
            up = self.group_norm(self.convolve(b, f"{net}.conv"), f"{net}.gnorm")
            return functional.interpolate(up, scale_factor=2 ** (j - i), mode="nearest")
        for k in range(i - j):
            b = self.group_norm(self.convolve(b, f"{net}.{k}.conv", 2), f"{net}.{k}.gnorm")
            b = b.relu() if k < i - j - 1 else b
        return b

    def mask_logits(self, z: tuple[Tensor, ...]) -> Tensor:
        size = z[0].shape[-2:]
        larger = [
            functional.interpolate(part, size=size, mode="bilinear", align_corners=True)
            for part in z
        ]
        h = self.convolve(torch.cat(larger, dim=1), "last_layer.0")
        return self.convolve(self.batch_norm(h, "last_layer.1").relu(), "last_layer.3")


def random_network(weight_norm: WeightNorm, **shapes: Any) -> MDEQ:
    """Double weights of either sign, and statistics of positive variance."""
    model = small_network(weight_norm=weight_norm, mask_classes=5, **shapes).double().eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and "running_var" not in name and "length" not in name:
            tensor.normal_()
    return model


@pytest.mark.parametrize("weight_norm", ["none", "blocks", "published", "all"])
@pytest.mark.parametrize(
    "shapes",
    [
        {"big_kernels": (1, 2), "blocks": (2, 1), "stem_stride": 1},
        {
            "channels": (4, 8, 12),
            "head_channels": (2, 3, 4),
            "blocks": (1, 3, 2),
            "big_kernels": (2, 0, 1),
            "stem_stride": 2,
            "post_affine": True,
            "final_kernel": 3,
        },
        {"stem_stride": 4, "block_affine": False, "expansion": 3, "post_affine": True},
        {"stem_stride": 8, "fusion_affine": False},
        {"channels": (8,), "head_channels": (2,), "blocks": (3,), "big_kernels": (1,)},
        {
            "channels": (4, 4, 8, 12, 16),
            "head_channels": (1, 2, 3, 4, 5),
            "stem_stride": 1,
            "fusion_affine": False,
            "post_affine": True,
        },
    ],
)
@torch.no_grad()
def test_options(shapes: dict[str, Any], weight_norm: WeightNorm) -> None:
    model = random_network(weight_norm, **shapes)
    theirs = WrittenOut({published_name(n): tensor for n, tensor in model.state_dict().items()})
    size = model.size
    image = torch.randn(2, 3, size.image_multiple * 2, size.image_multiple, dtype=torch.float64)
    injection = theirs.injection(image, size.stem_halvings)
    assert_same(model.stem(image), injection, 1e-12)
    height, width = injection.shape[-2:]
    z = tuple(
        torch.randn(2, channels, height >> i, width >> i, dtype=torch.float64)
        for i, channels in enumerate(size.channels)
    )
    for ours, expected in zip(
        model.cell(z, injection), theirs.f(z, injection, tuple(size.blocks)), strict=True
    ):
        assert_same(ours, expected, 1e-12)
    assert_same(model.readout(z, "mask_logits"), theirs.mask_logits(z), 1e-12)
