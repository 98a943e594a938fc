"""The classification head of MDEQ: the branches are widened and joined from the top down."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.mdeq.convolution import convolution, convolution_norm_relu

WIDENING = 4
"""How many times a bottleneck's output is wider than its inner convolutions."""


class Bottleneck(nn.Module):
    """Bottleneck block: 1x1, 3x3 and 1x1 convolutions to 4 * `width` channels, plus a shortcut.

    Its three batch norms have no affine parameters. The shortcut is a normalised 1x1 convolution,
    or the identity where the channels agree.

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
        """Return (B, 4 * width, H, W)."""
        o = functional.relu(self.norm1(self.conv1(features)))
        o = functional.relu(self.norm2(self.conv2(o)))
        return functional.relu(self.norm3(self.conv3(o)) + self.shortcut(features))


class ClassificationHead(nn.Module):
    """Turn the branches z_i (B, C_i, H / 2^i, W / 2^i) into logits (B, classes).

    y_0 = widen_0(z_0), y_{i+1} = widen_{i+1}(z_{i+1}) + down_i(y_i); the logits are a linear map of
    the spatial mean of ReLU(BN(conv y_last)).

    Source: 2006.08656, after Wang et al. 2019, HRNet.
    """

    def __init__(
        self,
        channels: Sequence[int],
        head_channels: Sequence[int],
        final_channels: int,
        classes: int,
    ) -> None:
        """Build the head; `head_channels` are the widths of the bottlenecks, one a branch."""
        super().__init__()
        wide = [WIDENING * width for width in head_channels]
        self.widen = nn.ModuleList(map(Bottleneck, channels, head_channels))
        self.down = nn.ModuleList(
            convolution_norm_relu(above, below, 3, stride=2, bias=True)
            for above, below in pairwise(wide)
        )
        self.final = convolution_norm_relu(wide[-1], final_channels, 1, bias=True)
        self.classifier = nn.Linear(final_channels, classes)

    def forward(self, z: tuple[Tensor, ...]) -> Tensor:
        """Return the logits (B, classes)."""
        y: Tensor = self.widen[0](z[0])
        for widen, down, state in zip(self.widen[1:], self.down, z[1:], strict=True):
            y = widen(state) + down(y)
        logits: Tensor = self.classifier(self.final(y).mean(dim=(2, 3)))
        return logits
