"""Which number in the masks stands for which class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from equipoise.data.masked_files import IGNORED, decode_mask
from equipoise.errors import UserError

BLACK_AND_WHITE = (0, 255)
SOFT_VALUES = 32
SOFT_SHARE = 0.9


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
                f"and {IGNORED} for pixels that do not count."
            )
        self.counts += torch.bincount(ids.flatten(), minlength=IGNORED + 1)

    @property
    def found(self) -> list[int]:
        """The numbers that occur, ascending."""
        return self.counts.nonzero().flatten().tolist()

    @property
    def black_and_white(self) -> bool:
        """Whether nothing but 0 and 255 occurs, both of them: background and object, no class."""
        return tuple(self.found) == BLACK_AND_WHITE

    def classes(self, folder: Path) -> int:
        """Return one more than the largest class number.

        Raises UserError where the numbers can hardly be those of classes, and says how to name
        them.
        """
        used = [number for number in self.found if number != IGNORED]
        if len(used) < 2:
            raise UserError(
                f"The masks of {folder} hold no number of a class but {shown(used) or 'none'}, so "
                "that there is nothing to learn: two classes are needed, numbered from 0."
            )
        count = used[-1] + 1
        if 2 * len(used) < count:
            raise UserError(
                f"The masks of {folder} hold the numbers {shown(self.found)}, which are not "
                "numbered as classes 0, 1, … are: name that of each class as task.mask_values="
                f"[{listed(self.found)}]{self._without_ignored(used)}, or set "
                f"task.mask_classes={count} if most of the classes are to have no pixel."
            )
        if (
            len(used) > SOFT_VALUES
            and self.counts[[0, IGNORED]].sum() > SOFT_SHARE * self.counts.sum()
        ):
            raise UserError(
                f"The masks of {folder} are black and white with soft edges, of {len(used)} "
                "different greys: save them without smoothing, as 0 and 255, or set "
                f"task.mask_classes={count} if they are class numbers all the same."
            )
        return count

    def _without_ignored(self, used: Sequence[int]) -> str:
        if self.counts[IGNORED] == 0:
            return ""
        return f" (or [{listed(used)}] if {IGNORED} marks pixels that do not count)"


def only_black_and_white(masks: Iterable[Path]) -> bool:
    """Tell whether masks hold 0 and 255 alone; the first one with another number ends the walk."""
    values = MaskValues()
    for file in masks:
        values.add(file)
        if set(values.found) - set(BLACK_AND_WHITE):
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
            f"{mask_classes}: leave one of them out, or let them agree."
        )


def translate(ids: Tensor, values: Sequence[int], file: Path) -> Tensor:
    """Return the class of each pixel, its place in `values`, and 255 where it does not count.

    Raises UserError, which names the mask, for a number that is neither one of `values` nor 255.
    """
    classes = torch.full_like(ids, -1)
    classes[ids == IGNORED] = IGNORED
    for place, value in enumerate(values):
        classes[ids == value] = place
    if (classes < 0).any():
        raise UserError(
            f"The mask {file} has the number {int(ids[classes < 0][0])}, but those of "
            f"task.mask_values are {shown(values)}: correct the mask, or name the number there."
        )
    return classes


def shown(numbers: Sequence[int], most: int = 8) -> str:
    """[0, 128, 255] -> "0, 128, 255"; of many the first ones."""
    return ", ".join(map(str, numbers[:most])) + (", …" if len(numbers) > most else "")


def listed(numbers: Sequence[int]) -> str:
    """[0, 128] -> "0,128", as it is typed."""
    return ",".join(map(str, numbers))
