"""The map f of MDEQ, whose equilibrium is the network's state: blocks, then multiscale fusion."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise, repeat
from operator import add
from typing import Literal, cast

from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.mdeq.sizes import Size
from equipoise.nn import NormalisedConv2d, apply_mask, channel_mask

WeightNorm = Literal["none", "blocks", "published", "all"]
"""Which convolutions of f have a normalised weight.

published: those of the blocks and after the fusion, as in the papers' code; blocks; all (also the
fusion's): as in the two networks of torchdeq's zoo.
"""

NORMALISED: dict[WeightNorm, tuple[str, ...]] = {
    "none": (),
    "blocks": ("blocks",),
    "published": ("blocks", "post_fusion"),
    "all": ("blocks", "post_fusion", "fusion"),
}


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution of odd kernel with padding (kernel - 1) / 2: stride 1 keeps the size."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=bias)


def normalised_convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1
) -> NormalisedConv2d:
    """A convolution without bias whose weight is normalised."""
    return NormalisedConv2d(convolution(inputs, outputs, kernel, stride))


def convolution_norm_relu(
    inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False
) -> nn.Sequential:
    """Convolution, batch normalisation and ReLU, named `conv`, `norm` and `relu`."""
    return nn.Sequential(
        OrderedDict(
            conv=convolution(inputs, outputs, kernel, stride, bias),
            norm=nn.BatchNorm2d(outputs),
            relu=nn.ReLU(),
        )
    )


class ResidualBlock(nn.Module):
    """Residual block with group normalisation, which takes the injection in its middle.

    o = ReLU(GN1(conv1 h)); o = GN2(mask * conv2 o + injection) + h; output GN3(ReLU(o)). The first
    convolution widens the channels by `expansion`, the second narrows them again.

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
        """The block's output (B, C, H, W); injection and mask may be absent."""
        o = functional.relu(self.norm1(self.conv1(h)))
        o = apply_mask(self.conv2(o), mask)
        if injection is not None:
            o = o + injection
        o = self.norm2(o) + h
        output: Tensor = self.norm3(functional.relu(o))
        return output


class Branch(nn.Module):
    """One resolution: a chain of residual blocks; the first takes the injection."""

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
        """The branch's output; each block takes the next of `masks`."""
        for block in self.blocks:
            h = block(h, injection, next(masks))
            injection = None
        return h


def convolution_and_norm(
    source: int,
    target: int,
    kernel: int,
    *,
    groups: int,
    affine: bool,
    weight_norm: bool,
    stride: int = 1,
) -> OrderedDict[str, nn.Module]:
    """A convolution without bias and a group norm, named `conv` and `norm`."""
    make = normalised_convolution if weight_norm else convolution
    return OrderedDict(
        conv=make(source, target, kernel, stride),
        norm=nn.GroupNorm(groups, target, affine=affine),
    )


def upward_path(
    source: int, target: int, doublings: int, groups: int, affine: bool, weight_norm: bool
) -> nn.Sequential:
    """The path to a higher resolution: 1x1 convolution, group norm, nearest upsampling.

    `source` and `target` are numbers of channels; the size grows by 2^doublings.
    """
    layers = convolution_and_norm(
        source, target, 1, groups=groups, affine=affine, weight_norm=weight_norm
    )
    layers["upsample"] = nn.Upsample(scale_factor=2**doublings, mode="nearest")
    return nn.Sequential(layers)


def downward_path(
    source: int, target: int, halvings: int, groups: int, affine: bool, weight_norm: bool
) -> nn.Sequential:
    """The path to a lower resolution: one 3x3 convolution of stride 2 for each halving.

    Only the last changes the channels, and only the last has no ReLU after its group norm.
    """
    widths = [*[source] * halvings, target]
    stages = [
        nn.Sequential(
            convolution_and_norm(
                wide, next_wide, 3, groups=groups, affine=affine, weight_norm=weight_norm, stride=2
            )
        )
        for wide, next_wide in pairwise(widths)
    ]
    for stage in stages[:-1]:
        stage.append(nn.ReLU())
    return nn.Sequential(*stages)


class Fusion(nn.Module):
    """Sum over the branches: y_i = b_i + sum of up(b_j), j > i, + sum of down(b_j), j < i.

    Source: 2006.08656 (multi-resolution fusion).
    """

    def __init__(
        self, channels: Sequence[int], groups: int, affine: bool, weight_norm: bool = False
    ) -> None:
        """Build the paths between all pairs of branches; `paths[i][str(j)]` leads from j to i."""
        super().__init__()
        self.paths = nn.ModuleList(
            nn.ModuleDict(
                {
                    str(j): (upward_path if j > i else downward_path)(
                        source, target, abs(i - j), groups, affine, weight_norm
                    )
                    for j, source in enumerate(channels)
                    if j != i
                }
            )
            for i, target in enumerate(channels)
        )

    def forward(self, branches: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The fused branches, each of the shape of its own branch."""
        return tuple(self._fuse(i, branches) for i in range(len(branches)))

    def _fuse(self, target: int, branches: tuple[Tensor, ...]) -> Tensor:
        paths = cast(nn.ModuleDict, self.paths[target])
        return reduce(
            add,
            (b if source == target else paths[str(source)](b) for source, b in enumerate(branches)),
        )


def post_fusion(channels: int, groups: int, affine: bool, weight_norm: bool) -> nn.Sequential:
    """ReLU, 1x1 convolution and group norm, the last step of f in a branch.

    Its norm has half as many groups as all the others, as in the published code.
    """
    layers = convolution_and_norm(
        channels, channels, 1, groups=groups // 2, affine=affine, weight_norm=weight_norm
    )
    return nn.Sequential(OrderedDict(relu=nn.ReLU(), **layers))


class Cell(nn.Module):
    """f(z, injection, *masks): residual blocks in every branch, then the multiscale fusion.

    z is a tuple of tensors (B, C_i, H / 2^i, W / 2^i), and so is the result. The injection
    (B, C_0, H, W) enters the first block of branch 0 alone.

    Source: 2006.08656.
    """

    def __init__(self, size: Size, *, weight_norm: WeightNorm = "published") -> None:
        """Build the cell; `weight_norm` says which of its convolutions are normalised."""
        super().__init__()
        normalised = NORMALISED[weight_norm]
        self.block_channels = [
            channels
            for channels, blocks in zip(size.channels, size.blocks, strict=True)
            for _ in range(blocks)
        ]
        self.branches = nn.ModuleList(
            Branch(
                channels,
                blocks,
                size.expansion,
                size.groups,
                big,
                size.block_affine,
                "blocks" in normalised,
            )
            for channels, blocks, big in zip(
                size.channels, size.blocks, size.big_kernels, strict=True
            )
        )
        # A single branch has nothing to fuse: its f ends with its blocks.
        several = size.channels if len(size.channels) > 1 else ()
        self.fusion = Fusion(several, size.groups, size.fusion_affine, "fusion" in normalised)
        self.post_fusion = nn.ModuleList(
            post_fusion(channels, size.groups, size.post_affine, "post_fusion" in normalised)
            for channels in several
        )

    def draw_masks(self, like: Tensor, probability: float) -> tuple[Tensor, ...]:
        """Draw one dropout mask for each block, in the order in which `forward` takes them."""
        return tuple(channel_mask(like, channels, probability) for channels in self.block_channels)

    def forward(
        self, z: tuple[Tensor, ...], injection: Tensor, *masks: Tensor
    ) -> tuple[Tensor, ...]:
        """Apply f once; `masks` are those of `draw_masks`, or none.

        Raises ValueError if `masks` is neither empty nor one mask for each block.
        """
        if masks and len(masks) != len(self.block_channels):
            raise ValueError(f"{len(masks)} masks for {len(self.block_channels)} blocks.")
        mask = iter(masks) if masks else repeat(None)
        outputs = tuple(
            branch(state, None if i else injection, mask)
            for i, (branch, state) in enumerate(zip(self.branches, z, strict=True))
        )
        if len(outputs) == 1:
            return outputs
        fused = self.fusion(outputs)
        return tuple(post(y) for post, y in zip(self.post_fusion, fused, strict=True))
