"""Images and their masks as they lie on the disk, in pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from equipoise.data.encoded_images import (
    DECODING_ERRORS,
    ON_ITS_SIDE,
    decode_rgb,
    image_size,
    orientation,
    reason,
    upright,
)
from equipoise.errors import UserError

IGNORED = 255
PROGRESS_AFTER_SECONDS = 2.0

ToClasses = Callable[[Tensor, Path], Tensor]
"""From the ids of a mask (H, W) to its classes; the path is for the error message."""


class ImageAndMask(NamedTuple):
    """The files of one sample."""

    image: Path
    mask: Path


class MaskedFiles:
    """The pairs of one split, decoded one by one; `to_classes` translates the masks' ids."""

    def __init__(self, pairs: Sequence[ImageAndMask], to_classes: ToClasses) -> None:
        self.pairs = list(pairs)
        self.to_classes = to_classes

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    def encoded(self, row: int) -> bytes:
        """Return the file contents of the image in a row."""
        return self.pairs[row].image.read_bytes()

    def describe(self, row: int) -> str:
        """Return the path of the image in a row."""
        return str(self.pairs[row].image)

    def read(self, row: int) -> tuple[Tensor, Tensor]:
        """Decode a pair: image uint8 (3, H, W), mask uint8 (H, W) of classes, 255 ignored.

        Raises UserError, which names the file, for one that is damaged, for a mask of another size
        than its image and for an id that is no class.
        """
        image, file = decode_rgb(self, row), self.pairs[row].mask
        mask = self.to_classes(decode_mask(file), file)
        refuse_other_size(self.pairs[row], (image.shape[-1], image.shape[-2]), mask.shape[::-1])
        return image, mask.to(torch.uint8)

    def check_sizes(self) -> None:
        """Raise UserError at the first mask of another size than its image; reads headers only."""
        for pair in progress(self.pairs, "Checking masks"):
            refuse_other_size(pair, image_size(pair.image), image_size(pair.mask))


def decode_mask(file: Path) -> Tensor:
    """Decode a mask, upright, to its ids, int64 (H, W): grey values, or the numbers of a palette.

    Raises UserError, which names the file, when it is missing, damaged, in colour or of numbers
    that are no whole ones.
    """
    try:
        with Image.open(file) as image:
            _refuse_shortened(image)
            ids = np.asarray(upright(image))
    except DECODING_ERRORS as error:
        raise UserError(
            f"The mask {file} cannot be decoded ({reason(error)}): replace it."
        ) from error
    if image.mode in ("LA", "PA") or (
        image.mode in ("RGB", "RGBA") and (ids[..., :3] == ids[..., :1]).all()
    ):
        ids = ids[..., 0]
    if ids.ndim != 2:
        raise UserError(
            f"The mask {file} is in colour: a mask holds one class number a pixel, "
            "as a grey or palette image."
        )
    if image.mode == "F" and not (np.isfinite(ids) & (ids == np.trunc(ids))).all():
        raise UserError(f"The mask {file} has numbers that are no whole ones: save class numbers.")
    return torch.from_numpy(ids.astype(np.int64))


def _refuse_shortened(image: Image.Image) -> None:
    """Raise ValueError where Pillow would drop the lower eight of a number's sixteen bits."""
    if image.mode in ("LA", "RGB", "RGBA") and ";16" in str(getattr(image, "tile", "")):
        raise ValueError("it has several channels of 16 bits; save one channel of class numbers")


def refuse_other_size(pair: ImageAndMask, image: Sequence[int], mask: Sequence[int]) -> None:
    """Raise UserError unless both sizes (width, height) are the same."""
    if tuple(image) != tuple(mask):
        raise UserError(
            f"The mask {pair.mask} is {mask[0]} pixels wide and {mask[1]} high, its image "
            f"{pair.image.name} is {image[0]} wide and {image[1]} high{_turned(pair.image)}: give "
            "both the same size."
        )


def _turned(file: Path) -> str:
    with Image.open(file) as image:
        on_its_side = orientation(image) in ON_ITS_SIDE
    return " when it is turned upright, as its EXIF orientation says" if on_its_side else ""


def progress(pairs: Sequence[ImageAndMask], title: str) -> tqdm[ImageAndMask]:
    """Show how far a walk over all files is when it takes long."""
    return tqdm(pairs, title, delay=PROGRESS_AFTER_SECONDS, leave=False)
