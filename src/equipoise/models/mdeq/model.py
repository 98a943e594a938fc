"""The multiscale deep equilibrium network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from equipoise.models.image_size import SizeName, named_size
from equipoise.models.mdeq.cell import Cell
from equipoise.models.mdeq.head import ClassificationHead
from equipoise.models.mdeq.initialisation import initialise
from equipoise.models.mdeq.sizes import SIZES, Size
from equipoise.models.mdeq.stem import Stem, zero_state
from equipoise.nn import weights_computed_once


class MDEQ(nn.Module):
    """Classify images (B, image_channels, H, W) by the equilibrium of several resolutions.

    z* = f(z*, stem(image)) is found and differentiated by `equilibrium`, from z = 0; the head reads
    z*. `equilibrium(f, z0, *inputs)` returns the state, a tuple of one tensor a branch.

    Source: 2006.08656; f, the stem and the sizes follow the code published with 2106.14342.
    """

    def __init__(
        self,
        equilibrium: nn.Module,
        *,
        classes: int,
        image_size: int,
        image_channels: int = 3,
        size: SizeName = "auto",
        channels: Sequence[int] | None = None,
        head_channels: Sequence[int] | None = None,
        final_channels: int | None = None,
        blocks: Sequence[int] | None = None,
        big_kernels: Sequence[int] | None = None,
        expansion: float | None = None,
        groups: int | None = None,
        stem_stride: int | None = None,
        block_affine: bool | None = None,
        fusion_affine: bool | None = None,
        post_affine: bool | None = None,
        weight_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        """Build the network of `size`; every field of `Size` that is given replaces the size's.

        Where `channels` alone changes the number of branches, the heads follow. `dropout` is the
        probability of the blocks' variational dropout. Raises ValueError when the shapes do not
        fit each other or the image.
        """
        super().__init__()
        self.size = _adapted_size(
            named_size(size, image_size, SIZES),
            channels=channels,
            head_channels=head_channels,
            final_channels=final_channels,
            blocks=blocks,
            big_kernels=big_kernels,
            expansion=expansion,
            groups=groups,
            stem_stride=stem_stride,
            block_affine=block_affine,
            fusion_affine=fusion_affine,
            post_affine=post_affine,
        )
        self.size.check_image(image_size, image_size)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout lies in [0, 1), it is {dropout}.")
        self.dropout = dropout
        self.stem = Stem(
            image_channels,
            self.size.channels[0],
            self.size.stem_halvings,
            len(self.size.channels),
        )
        self.cell = Cell(self.size, weight_norm=weight_norm)
        self.equilibrium = equilibrium
        self.head = ClassificationHead(
            self.size.channels, self.size.head_channels, self.size.final_channels, classes
        )
        for part in (self.stem, self.cell, self.head):
            initialise(part)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits (B, classes) of images whose sides the branches can halve."""
        self.size.check_image(image.shape[-2], image.shape[-1])
        injection = self.stem(image)
        z0 = zero_state(injection, self.size.channels)
        f = weights_computed_once(self.cell)
        z = self.equilibrium(f, z0, injection, *self._draw_masks(injection))
        logits: Tensor = self.head(z)
        return logits

    def _draw_masks(self, injection: Tensor) -> tuple[Tensor, ...]:
        if not self.training or self.dropout == 0:
            return ()
        return self.cell.draw_masks(injection, self.dropout)


def _adapted_size(size: Size, **given: Sequence[int] | float | None) -> Size:
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if "channels" in changes:
        branches = len(changes["channels"])
        followers = {"head_channels": _follow(size.head_channels, branches)}
        changes = {**followers, "blocks": (), "big_kernels": (), **changes}
    return replace(size, **changes)


def _follow(widths: Sequence[int], branches: int) -> tuple[int, ...]:
    longer = [*widths, *(widths[-1] * 2**extra for extra in range(1, branches))]
    return tuple(longer[:branches])
