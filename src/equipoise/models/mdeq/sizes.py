"""The sizes of MDEQ: channels, blocks and norms for `size=tiny|small|large|xl`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from equipoise.models.sizes import Family


@dataclass(frozen=True)
class Size:
    """Everything that determines the shape of an MDEQ except its images and classes.

    `channels`, `head_channels`, `blocks` and `big_kernels` have one entry per branch, the highest
    resolution first; `blocks` and `big_kernels` may be empty, which means 1 and 0 everywhere.
    `stem_stride` is 1, 2, 4, 8, ...; the `affine` switches are those of the group norms in the
    blocks, the fusion and behind the fusion. Raises ValueError when the entries do not fit.
    """

    channels: Sequence[int]
    head_channels: Sequence[int]
    final_channels: int
    stem_stride: int
    expansion: float = 5
    groups: int = 8
    block_affine: bool = True
    fusion_affine: bool = True
    post_affine: bool = False
    blocks: Sequence[int] = ()
    big_kernels: Sequence[int] = ()

    def __post_init__(self) -> None:
        """Turn sequences into tuples, fill the empty ones and check all entries."""
        filled = {
            "channels": self.channels,
            "head_channels": self.head_channels,
            "blocks": self.blocks or [1] * len(self.channels),
            "big_kernels": self.big_kernels or [0] * len(self.channels),
        }
        for name, entries in filled.items():
            object.__setattr__(self, name, tuple(entries))
        _check_branches(self)
        _check_groups(self)
        _check_ranges(self)

    @property
    def stem_halvings(self) -> int:
        """log2 of the stem's stride."""
        return self.stem_stride.bit_length() - 1

    @property
    def image_multiple(self) -> int:
        """The number that must divide an image's height and width for it to fit."""
        return self.stem_stride * self._branch_multiple

    @property
    def _branch_multiple(self) -> int:
        return 2 ** (len(self.channels) - 1)

    def check_image(self, height: int, width: int) -> None:
        """Raise ValueError when the branches cannot halve the stem's output of such an image."""
        # A convolution of stride 2 rounds up.
        stem_output = (-(-side // self.stem_stride) for side in (height, width))
        if any(side == 0 or side % self._branch_multiple for side in stem_output):
            raise ValueError(
                f"Images of {height} x {width} pixels do not fit an MDEQ of {len(self.channels)} "
                f"branches on a stem of stride {self.stem_stride}: make height and width "
                f"multiples of {self.image_multiple}."
            )


def _check_branches(size: Size) -> None:
    if not size.channels:
        raise ValueError("channels needs one entry for each branch; it is empty.")
    for name in ("head_channels", "blocks", "big_kernels"):
        entries = getattr(size, name)
        if len(entries) != len(size.channels):
            raise ValueError(
                f"{name} has {len(entries)} entries and channels has {len(size.channels)}: "
                "both need one for each branch."
            )


def _check_groups(size: Size) -> None:
    if size.groups < 2:
        raise ValueError(f"groups is {size.groups}; it must be at least 2.")
    # The norm after the fusion has half as many groups, rounded down.
    multiple = math.lcm(size.groups, size.groups // 2)
    for channels in size.channels:
        wide = int(size.expansion * channels)
        if min(channels, wide) < 1 or channels % multiple or wide % size.groups:
            raise ValueError(
                f"A branch of {channels} channels with expansion {size.expansion} cannot be split "
                f"into {size.groups} groups: make channels multiples of {multiple} and expanded "
                f"channels multiples of {size.groups}."
            )


def _check_ranges(size: Size) -> None:
    if size.stem_stride < 1 or size.stem_stride & (size.stem_stride - 1):
        raise ValueError(f"stem_stride is {size.stem_stride}; it must be a power of two.")
    if not set(size.big_kernels) <= {0, 1, 2}:
        raise ValueError(f"big_kernels is {list(size.big_kernels)}; its entries are 0, 1 or 2.")
    if min(size.blocks) < 1:
        raise ValueError(f"blocks is {list(size.blocks)}; every branch needs at least one block.")


_CIFAR_TINY = Size((24, 24), (8, 16), 200, stem_stride=1)
_CIFAR_LARGE = Size((32, 64, 128, 256), (14, 28, 56, 112), 1680, stem_stride=1)
_THREE_BRANCHES = Size((32, 64, 128), (14, 28, 56), 840, stem_stride=1)
_WIDE_HEADS = (32, 64, 128, 256)

# The published code has two columns for thumbnails, tiny (without augmentation) and large, and
# small, large and xl for photographs. All other entries are our own.
SIZES: dict[Family, dict[str, Size]] = {
    "miniature": {
        "tiny": Size((16, 24), (4, 6), 64, stem_stride=1, expansion=3),
        "small": _CIFAR_TINY,
        "large": _THREE_BRANCHES,
        "xl": _CIFAR_LARGE,
    },
    "thumbnail": {
        "tiny": _CIFAR_TINY,
        "small": _THREE_BRANCHES,
        "large": _CIFAR_LARGE,
        "xl": Size((48, 96, 192, 384), (20, 40, 80, 160), 2048, stem_stride=1),
    },
    "photograph": {
        "tiny": Size((32, 64), (24, 48), 512, stem_stride=4, post_affine=True),
        "small": Size((32, 64, 128, 256), (24, 48, 96, 192), 2048, stem_stride=4, post_affine=True),
        "large": Size((80, 160, 320, 640), _WIDE_HEADS, 2048, stem_stride=4, post_affine=True),
        "xl": Size(
            (88, 176, 352, 704), _WIDE_HEADS, 2048, stem_stride=4, expansion=6, post_affine=True
        ),
    },
}
