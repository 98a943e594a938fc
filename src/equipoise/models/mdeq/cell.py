"""The map f of MDEQ, whose equilibrium is the network's state."""

from __future__ import annotations

from itertools import repeat

from torch import Tensor, nn

from equipoise.models.mdeq.block import Branch
from equipoise.models.mdeq.convolution import WeightNorm
from equipoise.models.mdeq.fusion import Fusion, post_fusion
from equipoise.models.mdeq.sizes import Size
from equipoise.nn import channel_mask

NORMALISED: dict[WeightNorm, tuple[str, ...]] = {
    "none": (),
    "blocks": ("blocks",),
    "published": ("blocks", "post_fusion"),
    "all": ("blocks", "post_fusion", "fusion"),
}


class Cell(nn.Module):
    """f(z, injection, *masks): residual blocks in every branch, then the multiscale fusion.

    z is a tuple of tensors (B, C_i, H / 2^i, W / 2^i), and so is the answer. The injection
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

        Raises ValueError when there are some masks, but not one for each block.
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
