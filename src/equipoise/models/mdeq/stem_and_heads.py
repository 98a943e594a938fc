"""The ends of MDEQ: from the image to the injection, from the state to classes or masks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.mdeq.cell import convolution, convolution_norm_relu

Kernel = Literal[1, 3]
WIDENING = 4
"""How many times a bottleneck's output is wider than its inner convolutions."""
CONVOLUTION_STD = 0.01


class Stem(nn.Module):
    """Turn the image (B, image_channels, H, W) into the injection (B, C, H / stride, W / stride).

    Two 3x3 convolutions, or as many as there are halvings, then a 1x1 `projection`. A network of
    at most two branches at full resolution has no projection.

    Source: 2006.08656; the rule for the projection is the published code's.
    """

    def __init__(self, image_channels: int, channels: int, halvings: int, branches: int) -> None:
        """Build the stem; `halvings` is log2 of its stride, `branches` counts the resolutions."""
        super().__init__()
        inputs = [image_channels] + [channels] * (max(2, halvings) - 1)
        self.layers = nn.Sequential(
            *(
                convolution_norm_relu(count, channels, 3, stride=2 if index < halvings else 1)
                for index, count in enumerate(inputs)
            )
        )
        self.projection: nn.Module = (
            nn.Identity()
            if halvings == 0 and branches <= 2
            else convolution_norm_relu(channels, channels, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """The injection into the branch of highest resolution."""
        injection: Tensor = self.projection(self.layers(image))
        return injection


def zero_state(injection: Tensor, channels: Sequence[int]) -> tuple[Tensor, ...]:
    """Zeros (B, C_i, H / 2^i, W / 2^i) for every branch i of an injection (B, C_0, H, W).

    Under autocast the injection may have half precision, but f still returns float32, the state's
    dtype; otherwise the state has the injection's dtype. Its memory format is that of the
    injection.
    """
    autocast = torch.is_autocast_enabled(injection.device.type)
    dtype = torch.float32 if autocast else injection.dtype
    batch, _, height, width = injection.shape
    last = injection.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    shapes = ((batch, n, height >> i, width >> i) for i, n in enumerate(channels))
    zeros = (injection.new_zeros(shape, dtype=dtype) for shape in shapes)
    return tuple(part.contiguous(memory_format=order) for part in zeros)


class Bottleneck(nn.Module):
    """Bottleneck block: 1x1, 3x3 and 1x1 convolutions to 4 * `width` channels, plus a shortcut.

    Its three batch norms have no affine parameters. The shortcut is a normalised 1x1 convolution,
    or the identity if the channels agree.

    Source: He et al. 2016, "Deep residual learning", figure 5; the norms are the published MDEQ's.
    """

    def __init__(self, channels: int, width: int) -> None:
        """Build the block from `channels` to 4 * `width` channels."""
        super().__init__()
        outputs = WIDENING * width
        self.conv1 = convolution(channels, width, 1)
        self.norm1 = nn.BatchNorm2d(width, affine=False)
        self.conv2 = convolution(width, width, 3)
        self.norm2 = nn.BatchNorm2d(width, affine=False)
        self.conv3 = convolution(width, outputs, 1)
        self.norm3 = nn.BatchNorm2d(outputs, affine=False)
        self.shortcut: nn.Module = (
            nn.Identity()
            if channels == outputs
            else nn.Sequential(convolution(channels, outputs, 1), nn.BatchNorm2d(outputs))
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, 4 * width, H, W)."""
        o = functional.relu(self.norm1(self.conv1(features)))
        o = functional.relu(self.norm2(self.conv2(o)))
        return functional.relu(self.norm3(self.conv3(o)) + self.shortcut(features))


class FeatureHead(nn.Module):
    """Turn the branches z_i (B, C_i, H / 2^i, W / 2^i) into features (B, final_channels).

    From the top down: y_0 = widen_0(z_0), y_{i+1} = widen_{i+1}(z_{i+1}) + down_i(y_i); the
    features are the spatial mean of ReLU(BN(conv y_last)).

    Source: 2006.08656, after Wang et al. 2019, HRNet.
    """

    def __init__(
        self, channels: Sequence[int], head_channels: Sequence[int], final_channels: int
    ) -> None:
        """Build the head; `head_channels` are the widths of the bottlenecks, one per branch."""
        super().__init__()
        wide = [WIDENING * width for width in head_channels]
        self.widen = nn.ModuleList(map(Bottleneck, channels, head_channels))
        self.down = nn.ModuleList(
            convolution_norm_relu(above, below, 3, stride=2, bias=True)
            for above, below in pairwise(wide)
        )
        self.final = convolution_norm_relu(wide[-1], final_channels, 1, bias=True)

    def forward(self, z: tuple[Tensor, ...]) -> Tensor:
        """The features (B, final_channels)."""
        y: Tensor = self.widen[0](z[0])
        for widen, down, state in zip(self.widen[1:], self.down, z[1:], strict=True):
            y = widen(state) + down(y)
        features: Tensor = self.final(y).mean(dim=(2, 3))
        return features


class ClassificationHead(FeatureHead):
    """The logits (B, classes), a linear map of the features."""

    def __init__(
        self,
        channels: Sequence[int],
        head_channels: Sequence[int],
        final_channels: int,
        classes: int,
    ) -> None:
        """Build the head; `head_channels` are the widths of the bottlenecks, one per branch."""
        super().__init__(channels, head_channels, final_channels)
        self.classifier = nn.Linear(final_channels, classes)

    def forward(self, z: tuple[Tensor, ...]) -> Tensor:
        """The logits (B, classes)."""
        logits: Tensor = self.classifier(super().forward(z))
        return logits


class SegmentationHead(nn.Module):
    """Turn the branches z_i (B, C_i, H / 2^i, W / 2^i) into logits (B, classes, H, W).

    The logits are conv(ReLU(BN(conv concat_i up(z_i)))), where up is bilinear with the corners
    aligned; the inner convolution is 1x1 and keeps the sum of all channels, the outer one has
    kernel `kernel`.

    Source: 2006.08656, after Wang et al. 2019, HRNet.
    """

    def __init__(self, channels: Sequence[int], classes: int, kernel: Kernel = 1) -> None:
        """Build the head for branches of these `channels`."""
        super().__init__()
        self.mix = convolution_norm_relu(sum(channels), sum(channels), 1, bias=True)
        self.classifier = convolution(sum(channels), classes, kernel, bias=True)

    def forward(self, z: tuple[Tensor, ...]) -> Tensor:
        """The logits (B, classes, H, W) at the resolution of the first branch."""
        size = z[0].shape[-2:]
        enlarged = [
            functional.interpolate(state, size=size, mode="bilinear", align_corners=True)
            for state in z[1:]
        ]
        logits: Tensor = self.classifier(self.mix(torch.cat([z[0], *enlarged], dim=1)))
        return logits


def initialise(network: nn.Module) -> None:
    """Draw the plain convolutions and all convolutions' biases from N(0, 0.01), in place.

    Weight-normed convolutions and linear layers keep PyTorch's initial weights, and norms their
    initial 1 and 0, as in the published code, where the normal draw never reaches a normalised
    weight.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=CONVOLUTION_STD)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=CONVOLUTION_STD)


def set_batch_norm_momentum(network: nn.Module, momentum: float) -> None:
    """Set how far a training step moves the running statistics of every batch norm, in place."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
