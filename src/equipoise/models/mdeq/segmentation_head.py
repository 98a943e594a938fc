"""The segmentation head of MDEQ: all branches are brought to the first one's size and mixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.mdeq.convolution import convolution, convolution_norm_relu

Kernel = Literal[1, 3]


class SegmentationHead(nn.Module):
    """Turn the branches z_i (B, C_i, H / 2^i, W / 2^i) into logits (B, classes, H, W).

    The logits are conv(ReLU(BN(conv concat_i up(z_i)))), where up is bilinear with the corners
    aligned; the inner convolution is 1x1 and keeps the sum of all channels, the outer one has
    kernel `kernel`.

    Source: 2006.08656, after Wang et al. 2019, HRNet.
    """

    def __init__(self, channels: Sequence[int], classes: int, kernel: Kernel = 1) -> None:
        """Build the head for branches of so many `channels`."""
        super().__init__()
        self.mix = convolution_norm_relu(sum(channels), sum(channels), 1, bias=True)
        self.classifier = convolution(sum(channels), classes, kernel, bias=True)

    def forward(self, z: tuple[Tensor, ...]) -> Tensor:
        """Return the logits (B, classes, H, W) at the resolution of the first branch."""
        size = z[0].shape[-2:]
        enlarged = [
            functional.interpolate(state, size=size, mode="bilinear", align_corners=True)
            for state in z[1:]
        ]
        logits: Tensor = self.classifier(self.mix(torch.cat([z[0], *enlarged], dim=1)))
        return logits
