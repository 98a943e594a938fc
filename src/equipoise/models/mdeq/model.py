"""The multiscale deep equilibrium network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from equipoise.equilibrium.state import constant
from equipoise.models.backbone import load_backbone
from equipoise.models.mdeq.cell import Cell, WeightNorm
from equipoise.models.mdeq.sizes import SIZES, Size
from equipoise.models.mdeq.stem_and_heads import (
    ClassificationHead,
    FeatureHead,
    Kernel,
    SegmentationHead,
    Stem,
    initialise,
    set_batch_norm_momentum,
    zero_state,
)
from equipoise.models.sizes import SizeName, adapted_size, size_for_images
from equipoise.nn import LearnedImageStart, weights_computed_once

Output = Literal["logits", "mask_logits", "features"]
BACKBONE = ("stem.", "cell.")
"""The parts that a head builds on."""


class MDEQ(nn.Module):
    """Classify or segment images (B, image_channels, H, W) by the equilibrium of several scales.

    z* = f(z*, stem(image)) is found and differentiated by `equilibrium`, from z = 0 or from the
    prediction of an `initializer`; a head reads z*. `equilibrium(f, z0, *inputs)` returns the
    state, a tuple of one tensor per branch.

    Source: 2006.08656; f, the stem and the sizes follow the code published with 2106.14342.
    """

    def __init__(
        self,
        equilibrium: nn.Module,
        *,
        classes: int | None = None,
        mask_classes: int | None = None,
        features: bool = False,
        image_size: int | Sequence[int],
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
        final_kernel: Kernel = 1,
        weight_norm: WeightNorm = "published",
        batch_norm_momentum: float = 0.1,
        dropout: float = 0.0,
        initializer: int | None = None,
        backbone_ckpt: str | None = None,
    ) -> None:
        """Build the network of `size`; every field of `Size` that is given replaces the size's.

        `classes` adds a classification head, `mask_classes` a segmentation head whose last
        convolution has `final_kernel`, `features` a classification head without its last layer,
        which makes the network an encoder; at least one is needed. `image_size` is a side in
        pixels, or [height, width]. If `channels` alone changes the number of branches, the heads
        follow. `dropout` is the probability of the blocks' variational dropout. `initializer` is
        the width of a network that learns to predict z* as the start; None: no such network.
        `backbone_ckpt` names a checkpoint whose stem and cell to start from. Raises ValueError if
        the shapes do not fit each other, the image or that checkpoint.
        """
        super().__init__()
        height, width = _height_and_width(image_size)
        self.size = _adapted_size(
            size_for_images(size, max(height, width), SIZES),
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
        self.size.check_image(height, width)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}.")
        self.dropout = dropout
        branches = len(self.size.channels)
        self.stem = Stem(image_channels, self.size.channels[0], self.size.stem_halvings, branches)
        self.cell = Cell(self.size, weight_norm=weight_norm)
        self.equilibrium = equilibrium
        self.heads = _heads(self.size, classes, mask_classes, final_kernel, features)
        for part in (self.stem, self.cell, self.heads):
            initialise(part)
            set_batch_norm_momentum(part, batch_norm_momentum)
        self.initializer: LearnedImageStart | None = None
        if initializer is not None:  # last, so that the other weights are drawn as without it
            channels_in = self.size.channels[0]
            self.initializer = LearnedImageStart(channels_in, self.size.channels, initializer)
        if backbone_ckpt is not None:
            load_backbone(self, backbone_ckpt, BACKBONE)

    @property
    def features(self) -> int:
        """The width of the features in front of a classifier."""
        return self.size.final_channels

    @property
    def head_parts(self) -> tuple[str, ...]:
        """What depends on the classes; the features of an encoder do not."""
        return tuple(f"heads.{name}" for name in self.heads if name != "features")

    @property
    def image_multiple(self) -> int:
        """Images whose height and width are multiples of it fit the branches."""
        return self.size.image_multiple

    def forward(self, image: Tensor, output: Output | None = None) -> Tensor:
        """The logits (B, classes), or the mask's (B, mask_classes, H / stride, W / stride).

        `output` chooses the head; a model of one head does not need it. Raises ValueError as
        `readout` does, and if the branches cannot halve the image.
        """
        head = self._head(output)
        logits: Tensor = head(self.state(image))
        return logits

    def state(self, image: Tensor) -> tuple[Tensor, ...]:
        """The equilibrium z*, one tensor (B, C_i, H / 2^i, W / 2^i) a branch."""
        self.size.check_image(image.shape[-2], image.shape[-1])
        injection = self.stem(image)
        z0 = zero_state(injection, self.size.channels)
        f = weights_computed_once(self.cell)
        masks = self._draw_masks(injection)
        if self.initializer is None:
            z: tuple[Tensor, ...] = self.equilibrium(f, z0, injection, *masks)
            return z
        predicted = self.initializer(injection, z0)
        z = self.equilibrium(f, constant(predicted), injection, *masks)
        self.initializer.learn(predicted, z)
        return z

    def readout(self, z: tuple[Tensor, ...], output: Output | None = None) -> Tensor:
        """The output of a head for the state `z`.

        Raises ValueError if `output` names no head, or if none is named and there are two.
        """
        logits: Tensor = self._head(output)(z)
        return logits

    def _head(self, output: Output | None) -> nn.Module:
        names = list(self.heads)
        name = names[0] if output is None and len(names) == 1 else output
        if name not in names:
            raise ValueError(f"output is {output!r}; this model gives {' or '.join(names)}.")
        return self.heads[name]

    def _draw_masks(self, injection: Tensor) -> tuple[Tensor, ...]:
        if not self.training or self.dropout == 0:
            return ()
        return self.cell.draw_masks(injection, self.dropout)


def _heads(
    size: Size,
    classes: int | None,
    mask_classes: int | None,
    final_kernel: Kernel,
    features: bool,
) -> nn.ModuleDict:
    heads = nn.ModuleDict()
    if classes is not None:
        heads["logits"] = ClassificationHead(
            size.channels, size.head_channels, size.final_channels, classes
        )
    if mask_classes is not None:
        heads["mask_logits"] = SegmentationHead(size.channels, mask_classes, final_kernel)
    if features:
        heads["features"] = FeatureHead(size.channels, size.head_channels, size.final_channels)
    if not heads:
        raise ValueError("An MDEQ needs a head: give classes, mask_classes, or both.")
    return heads


def _height_and_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    sides = [image_size] * 2 if isinstance(image_size, int) else list(image_size)
    if len(sides) != 2:
        raise ValueError(f"image_size must be a side or [height, width], got {sides}.")
    return sides[0], sides[1]


def _adapted_size(
    size: Size, *, channels: Sequence[int] | None, **fields: Sequence[int] | float | None
) -> Size:
    """If the number of branches may change, adjust what has one entry per branch."""
    if channels is not None:
        followers = {
            "head_channels": _follow(size.head_channels, len(channels)),
            "blocks": (),
            "big_kernels": (),
        }
        fields = followers | {name: value for name, value in fields.items() if value is not None}
    return adapted_size(size, channels=channels, **fields)


def _follow(widths: Sequence[int], branches: int) -> tuple[int, ...]:
    longer = [*widths, *(widths[-1] * 2**extra for extra in range(1, branches))]
    return tuple(longer[:branches])
