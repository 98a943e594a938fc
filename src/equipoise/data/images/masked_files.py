"""Images and their masks as stored on disk, and which number in a mask stands for which class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from equipoise.data.images.encoded import (
    DECODING_ERRORS,
    ON_ITS_SIDE,
    decode_rgb,
    image_size,
    opened_picture,
    orientation,
    reason,
    upright,
)
from equipoise.errors import DamagedRecord, UserError
from equipoise.errors.sizes import bounded_bytes

IGNORED = 255
BLACK_AND_WHITE = (0, IGNORED)
SOFT_VALUES = 32
SOFT_SHARE = 0.9
PROGRESS_AFTER_SECONDS = 2.0

ToClasses = Callable[[Tensor, Path], Tensor]
"""Maps the ids of a mask (H, W) to its classes; the path is for the error message."""


class ImageAndMask(NamedTuple):
    """The files of one sample."""

    image: Path
    mask: Path


@dataclass(eq=False)
class MaskedFiles:
    """The pairs of one split, decoded one by one; `to_classes` translates the masks' ids."""

    pairs: Sequence[ImageAndMask]
    to_classes: ToClasses

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.pairs)

    def encoded(self, row: int) -> bytes:
        """The file contents of the image in a row."""
        return bounded_bytes(self.pairs[row].image, "picture_bytes")

    def describe(self, row: int) -> str:
        """The path of the image in a row."""
        return str(self.pairs[row].image)

    def read(self, row: int) -> tuple[Tensor, Tensor]:
        """Decode a pair: image uint8 (3, H, W), mask uint8 (H, W) of classes, 255 ignored.

        Raises UserError, which names the file, if one is damaged, if a mask and its image differ in
        size, and for an id that is not a class.
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

    Raises UserError, which names the file, if it is missing, damaged, in colour, or holds numbers
    that are not integers.
    """
    try:
        with opened_picture(file) as image:
            _refuse_shortened(image)
            ids = np.asarray(upright(image))
    except DECODING_ERRORS as error:
        raise DamagedRecord("mask", str(file), reason(error), "replace it.") from error
    if image.mode in ("LA", "PA") or (
        image.mode in ("RGB", "RGBA") and (ids[..., :3] == ids[..., :1]).all()
    ):
        ids = ids[..., 0]
    if ids.ndim != 2:
        raise UserError(
            f"The mask {file} is in colour: a mask holds one class number per pixel, "
            "as a grey or palette image."
        )
    if image.mode == "F" and not (np.isfinite(ids) & (ids == np.trunc(ids))).all():
        raise UserError(f"The mask {file} has numbers that are not integers: save class numbers.")
    return torch.from_numpy(ids.astype(np.int64))


def _refuse_shortened(image: Image.Image) -> None:
    """Raise ValueError if Pillow would drop the lower eight of a number's sixteen bits."""
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
    with opened_picture(file) as image:
        on_its_side = orientation(image) in ON_ITS_SIDE
    return " when rotated according to its EXIF orientation" if on_its_side else ""


def progress(pairs: Sequence[ImageAndMask], title: str) -> tqdm[ImageAndMask]:
    """Show the progress of a walk over all files if it takes long."""
    return tqdm(pairs, title, delay=PROGRESS_AFTER_SECONDS, leave=False)


class MaskValues:
    """How often each number from 0 to 255 occurs in some masks. counts: int64 (256,)."""

    def __init__(self) -> None:
        self.counts = torch.zeros(IGNORED + 1, dtype=torch.int64)

    def add(self, file: Path) -> None:
        """Count a mask; raises UserError, which names it, for a number below 0 or above 255."""
        ids = decode_mask(file)
        if ids.min() < 0 or ids.max() > IGNORED:
            wrong = ids.min() if ids.min() < 0 else ids.max()
            raise UserError(
                f"The mask {file} has the class number {int(wrong)}: they are 0 to {IGNORED - 1}, "
                f"and {IGNORED} for ignored pixels."
            )
        self.counts += torch.bincount(ids.flatten(), minlength=IGNORED + 1)

    @property
    def numbers(self) -> list[int]:
        """The numbers that occur, ascending."""
        return self.counts.nonzero().flatten().tolist()

    @property
    def black_and_white(self) -> bool:
        """Whether only 0 and 255 occur, and both: background and object, not class numbers."""
        return tuple(self.numbers) == BLACK_AND_WHITE

    def classes(self, folder: Path) -> int:
        """One more than the largest class number.

        Raises UserError, which says how to name the classes, if the numbers are unlikely
        to be class numbers.
        """
        used = [number for number in self.numbers if number != IGNORED]
        if len(used) < 2:
            raise UserError(
                f"The masks of {folder} hold no class number except {shown(used) or 'none'}, so "
                "there is nothing to learn: two classes are needed, numbered from 0."
            )
        count = used[-1] + 1
        if 2 * len(used) < count:
            raise UserError(
                f"The masks of {folder} hold the numbers {shown(self.numbers)}, which are not "
                "numbered as classes 0, 1, … are: name that of each class as task.mask_values="
                f"[{listed(self.numbers)}]{self._without_ignored(used)}, or set "
                f"task.mask_classes={count} if most classes should have no pixels."
            )
        if (
            len(used) > SOFT_VALUES
            and self.counts[[0, IGNORED]].sum() > SOFT_SHARE * self.counts.sum()
        ):
            raise UserError(
                f"The masks of {folder} are black and white with soft edges, of {len(used)} "
                "different greys: save them without smoothing, as 0 and 255, or set "
                f"task.mask_classes={count} if they are class numbers after all."
            )
        return count

    def _without_ignored(self, used: Sequence[int]) -> str:
        if self.counts[IGNORED] == 0:
            return ""
        return f" (or [{listed(used)}] if {IGNORED} marks ignored pixels)"


def only_black_and_white(masks: Iterable[Path]) -> bool:
    """Whether masks hold only 0 and 255; the walk ends at the first one with another number."""
    values = MaskValues()
    for file in masks:
        values.add(file)
        if set(values.numbers) - set(BLACK_AND_WHITE):
            return False
    return values.black_and_white


def check_mask_values(values: Sequence[int], mask_classes: int | None) -> None:
    """Raise UserError unless each class has a number of its own."""
    if not 2 <= len(set(values)) == len(values) <= IGNORED or min(values) < 0:
        raise UserError(
            f"task.mask_values is {list(values)}: set it to the number of each class in the masks, "
            f"2 to {IGNORED} of them and each once."
        )
    if mask_classes not in (None, len(values)):
        raise UserError(
            f"task.mask_values names {len(values)} numbers, but task.mask_classes is "
            f"{mask_classes}: leave one of them out, or make them agree."
        )


def translate(ids: Tensor, values: Sequence[int], file: Path) -> Tensor:
    """The class of each pixel, its index in `values`, or 255 if it does not count.

    Raises UserError, which names the mask, for a number that is neither in `values` nor 255.
    """
    classes = torch.full_like(ids, -1)
    classes[ids == IGNORED] = IGNORED
    for place, value in enumerate(values):
        classes[ids == value] = place
    if (classes < 0).any():
        raise UserError(
            f"The mask {file} has the number {int(ids[classes < 0][0])}, but those of "
            f"task.mask_values are {shown(values)}: correct the mask, or add the number to it."
        )
    return classes


def shown(numbers: Sequence[int], most: int = 8) -> str:
    """[0, 128, 255] -> "0, 128, 255"; of a long list only the first numbers."""
    return ", ".join(map(str, numbers[:most])) + (", …" if len(numbers) > most else "")


def listed(numbers: Sequence[int]) -> str:
    """[0, 128] -> "0,128", as it is typed."""
    return ",".join(map(str, numbers))
