"""Options that no recording has, against the published equations written out on published names."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest
import torch
from mdeq_recordings import assert_same
from torch import Tensor
from torch.nn import functional

from equipoise.interop import from_reference, reference_forward
from equipoise.interop.mdeq.weights import published_name
from equipoise.models import MDEQ
from equipoise.models.mdeq.cell import WeightNorm
from tests.interop.published_mdeq import published, small_network

GROUPS = 4


class WrittenOut:
    """The published computation, by the names of its weights."""

    def __init__(self, weights: dict[str, Tensor], groups: int = GROUPS) -> None:
        self.weights = weights
        self.groups = groups

    def convolve(self, h: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.weights.get(f"{name}.weight")
        if weight is None:
            v, g = self.weights[f"{name}.weight_v"], self.weights[f"{name}.weight_g"]
            weight = v * (g / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
        bias, padding = self.weights.get(f"{name}.bias"), (weight.shape[-1] - 1) // 2
        return functional.conv2d(h, weight, bias, stride, padding)

    def group_norm(self, h: Tensor, name: str, halved: bool = False) -> Tensor:
        affine = (self.weights.get(f"{name}.{entry}") for entry in ("weight", "bias"))
        return functional.group_norm(h, self.groups // 2 if halved else self.groups, *affine)

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
            self.convolve(y.relu(), f"{post}.conv"), f"{post}.gnorm", halved=True
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

    def logits(self, z: tuple[Tensor, ...]) -> Tensor:
        y: Tensor | None = None
        for i, state in enumerate(z):
            wide = self.bottleneck(state, f"incre_modules.{i}.0")
            if y is not None:
                down = f"downsamp_modules.{i - 1}"
                wide = wide + self.batch_norm(self.convolve(y, f"{down}.0", 2), f"{down}.1").relu()
            y = wide
        assert y is not None
        y = self.batch_norm(self.convolve(y, "final_layer.0"), "final_layer.1").relu()
        weight, bias = self.weights["classifier.weight"], self.weights["classifier.bias"]
        return functional.linear(y.mean(dim=(2, 3)), weight, bias)

    def bottleneck(self, h: Tensor, name: str) -> Tensor:
        o = h
        for number in (1, 2, 3):
            o = self.batch_norm(self.convolve(o, f"{name}.conv{number}"), f"{name}.bn{number}")
            o = o.relu() if number < 3 else o
        if f"{name}.downsample.0.weight" in self.weights:
            h = self.batch_norm(self.convolve(h, f"{name}.downsample.0"), f"{name}.downsample.1")
        return (o + h).relu()

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


class Variant(NamedTuple):
    """A configuration in the published words, and the images' size."""

    config: dict[str, Any]
    height: int
    width: int


def drawn_variant(number: int) -> Variant:
    """A configuration drawn from all that the published files can say."""
    draw = random.Random(number)
    branches, halvings = draw.randint(2, 5), number % 4
    size = 2 ** (halvings + branches - 1)
    groups = draw.choice([2, 4])
    channels = [groups * draw.randint(1, 3) for _ in range(branches)]
    config = {
        "NUM_CLASSES": draw.choice([5, 7]), "NUM_GROUPS": groups, "DROPOUT": 0.1,
        "WNORM": bool(number & 1), "DOWNSAMPLE_TIMES": halvings,
        "EXPANSION_FACTOR": draw.choice([1, 2, 3]),
        "BLOCK_GN_AFFINE": draw.random() < 0.5, "FUSE_GN_AFFINE": draw.random() < 0.5,
        "POST_GN_AFFINE": True,
        "NUM_BRANCHES": branches, "NUM_CHANNELS": channels,
        "NUM_BLOCKS": [draw.randint(1, 3) for _ in channels],
        "BIG_KERNELS": [draw.randint(0, 2) for _ in channels],
        "DEQ": {"F_SOLVER": draw.choice(["broyden", "anderson"]), "F_THRES": 9, "B_THRES": 8},
    }  # fmt: skip
    if draw.random() < 0.5:
        config |= {"DATASET.NUM_CLASSES": 6, "FINAL_CONV_KERNEL": draw.choice([1, 3])}
    else:
        # Four times the first entry is the channels: there the shortcut is the identity.
        config |= {"HEAD_CHANNELS": [max(1, count // 4) for count in channels]}
        config |= {"FINAL_CHANSIZE": 9}
    return Variant(config, size * draw.randint(1, 2), size * draw.randint(1, 2))


def published_weights(config: dict[str, Any]) -> dict[str, Tensor]:
    """Random weights by their published names, such that f contracts.

    The last norms have small gains beside their shifts.
    """
    masks = "DATASET.NUM_CLASSES" in config
    shapes: dict[str, Any] = {"classes": None} if masks else {"classes": config["NUM_CLASSES"]}
    shapes |= {"mask_classes": 6, "final_kernel": config["FINAL_CONV_KERNEL"]} if masks else {}
    stride, channels = 2 ** config["DOWNSAMPLE_TIMES"], config["NUM_CHANNELS"]
    model = small_network(
        image_size=stride * 2 ** (len(channels) - 1), channels=channels, stem_stride=stride,
        head_channels=config.get("HEAD_CHANNELS", channels),
        final_channels=config.get("FINAL_CHANSIZE", 9), groups=config["NUM_GROUPS"],
        expansion=config["EXPANSION_FACTOR"], blocks=config["NUM_BLOCKS"],
        big_kernels=config["BIG_KERNELS"], block_affine=config["BLOCK_GN_AFFINE"],
        fusion_affine=config["FUSE_GN_AFFINE"], post_affine=config["POST_GN_AFFINE"],
        weight_norm="published" if config["WNORM"] else "none", **shapes,
    ).double()  # fmt: skip
    weights = published(model)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not name.endswith(("running_var", "weight_g")):
            tensor.normal_()
        if "post_fuse_layers" in name and name.endswith("gnorm.weight"):
            tensor.mul_(0.005)
    return weights


@pytest.mark.parametrize("number", range(16))
@torch.no_grad()
def test_a_variant_through_the_whole_interface(number: int) -> None:
    """Configuration and state dict in; injection, f, head, fixed point and logits out."""
    config, height, width = drawn_variant(number)
    weights = published_weights(config)
    model = from_reference("mdeq", config, {f"module.{name}": w for name, w in weights.items()})
    theirs, blocks = WrittenOut(weights, config["NUM_GROUPS"]), tuple(config["NUM_BLOCKS"])
    head = theirs.mask_logits if "DATASET.NUM_CLASSES" in config else theirs.logits
    image = torch.randn(2, 3, height, width)
    injection = theirs.injection(image.double(), config["DOWNSAMPLE_TIMES"])
    z = tuple(
        torch.randn(2, count, injection.shape[2] >> i, injection.shape[3] >> i).double()
        for i, count in enumerate(config["NUM_CHANNELS"])
    )
    given = {"x": image.numpy(), **{f"z/{i}": part.numpy() for i, part in enumerate(z)}}
    ours = reference_forward("mdeq", model, given)
    f_of_z = theirs.f(z, injection, blocks)
    fixed = tuple(torch.zeros_like(part) for part in z)
    for _ in range(60):
        fixed = tuple(theirs.f(fixed, injection, blocks))
    expected = {"inj/0": injection, "head_of_z": head(z), "logits_tight": head(fixed)}
    expected |= {f"f/{i}": part for i, part in enumerate(f_of_z)}
    expected |= {f"zstar_tight/{i}": part for i, part in enumerate(fixed)}
    assert set(ours) == set(expected)
    for name, values in expected.items():
        assert_same(torch.from_numpy(ours[name]), values, 1e-10)


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
