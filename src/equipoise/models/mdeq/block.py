"""The residual block of MDEQ, and a branch made of it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.mdeq.convolution import convolution, normalised_convolution
from equipoise.nn import apply_mask


class ResidualBlock(nn.Module):
    """Residual block with group normalisation, which takes the injection in its middle.

    o = ReLU(GN1(conv1 h)); o = GN2(mask * conv2 o + injection) + h; output GN3(ReLU(o)). The first
    convolution widens the channels `expansion` times, the second brings them back.

    Source: 2006.08656.
    """

    def __init__(
        self,
        channels: int,
        expansion: float,
        groups: int,
        big_kernels: int,
        affine: bool,
        weight_norm: bool,
    ) -> None:
        """Build the block; `big_kernels` (0, 1, 2) of its convolutions are 5x5, the rest 3x3."""
        super().__init__()
        wide = int(expansion * channels)
        make = normalised_convolution if weight_norm else convolution
        self.conv1 = make(channels, wide, 5 if big_kernels >= 1 else 3)
        self.conv2 = make(wide, channels, 5 if big_kernels >= 2 else 3)
        self.norm1 = nn.GroupNorm(groups, wide, affine=affine)
        self.norm2 = nn.GroupNorm(groups, channels, affine=affine)
        self.norm3 = nn.GroupNorm(groups, channels, affine=affine)

    def forward(self, h: Tensor, injection: Tensor | None, mask: Tensor | None) -> Tensor:
        """Return the block's output (B, C, H, W); injection and mask may be absent."""
        o = functional.relu(self.norm1(self.conv1(h)))
        o = apply_mask(self.conv2(o), mask)
        if injection is not None:
            o = o + injection
        o = self.norm2(o) + h
        output: Tensor = self.norm3(functional.relu(o))
        return output


class Branch(nn.Module):
    """One resolution: a chain of residual blocks, of which the first takes the injection."""

    def __init__(
        self,
        channels: int,
        blocks: int,
        expansion: float,
        groups: int,
        big_kernels: int,
        affine: bool,
        weight_norm: bool,
    ) -> None:
        """Build `blocks` residual blocks of equal shape; the rest is as in `ResidualBlock`."""
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(channels, expansion, groups, big_kernels, affine, weight_norm)
            for _ in range(blocks)
        )

    def forward(
        self, h: Tensor, injection: Tensor | None, masks: Iterator[Tensor | None]
    ) -> Tensor:
        """Return the branch's output; each block takes the next of `masks`."""
        for block in self.blocks:
            h = block(h, injection, next(masks))
            injection = None
        return h
