"""What the data modules of the user's own pictures share: splits, classes, damaged files."""

from __future__ import annotations

import warnings
import zlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2

from equipoise.data.images.damage import Unusable, find_damaged
from equipoise.data.images.encoded import EncodedImages
from equipoise.data.images.module import DecodingDataModule, refuse_other_classes
from equipoise.data.images.splits import DecodedImages, Selection
from equipoise.data.images.transforms import (
    IMAGENET,
    Normalization,
    Preprocessing,
    evaluation_transform,
)
from equipoise.data.module import SPLITS, SplitName, check_fraction
from equipoise.data.sampling import stratified_split, stream
from equipoise.errors import UserError

HELD_OUT: tuple[tuple[SplitName, int], ...] = (("test", 5), ("val", 6))
"""The splits that are drawn if the data lack them, and the number that keys the draw of each."""

Rows = tuple[EncodedImages, Tensor]


@dataclass
class Found:
    """The pictures of each split present in the data, all with the same list of classes.

    place: where they are, in the words of a message. unusable: pictures already found to be
    unusable.
    """

    place: str
    splits: dict[SplitName, EncodedImages]
    unusable: list[Unusable] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, the same in all splits."""
        return next(iter(self.splits.values())).classes


class Usable(NamedTuple):
    """The rows of each split that can be used, and the pictures that were left out."""

    splits: dict[SplitName, Selection]
    left_out: list[Unusable]


@dataclass(kw_only=True, eq=False)
class OwnPictures(DecodingDataModule):
    """Pictures of any size and mode as (3, image_size, image_size), decoded when they are needed.

    If the data have no split test or val, `test_fraction` of the training pictures and
    `val_fraction` of the rest are drawn by `seed`, stratified by class. Without a test split, test
    is validation, and vice versa. `classes` null: counted.

    Every picture is decoded once before the run begins. `damaged`: "error" refuses to run at the
    first that cannot be decoded, "skip" leaves out such pictures and those that are damaged later.
    Splits are drawn from all pictures, including damaged ones, so that damaging or repairing a file
    moves no other picture to another split; the training order is a pure function of (seed, epoch)
    and the usable pictures.
    """

    path: str | None = None
    batch_size: int = 64
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    classes: int | None = None
    image_size: int = 64

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        check_fraction("val_fraction", self.val_fraction)
        check_fraction("test_fraction", self.test_fraction)

    @abstractmethod
    def find(self) -> Found:
        """Find the pictures of each split; raises UserError if there are none."""

    @property
    def normalization(self) -> Normalization:
        """The final normalisation of pixels."""
        return IMAGENET

    @property
    def evaluation(self) -> v2.Transform:
        """How a picture that is not augmented is transformed."""
        return evaluation_transform(self.image_size)

    @property
    def augmentation(self) -> v2.Transform | None:
        """What replaces that transform in training; None: nothing does."""
        return None

    @property
    def preprocessing(self) -> Preprocessing:
        """The same for pictures of any number of channels."""
        return Preprocessing(self.normalization, self.evaluation)

    def inspect(self) -> dict[str, Any]:
        """Find and decode all pictures before a run begins; {"classes": number} if that was null.

        Raises UserError if there are no pictures, the number of classes differs, or a picture is
        damaged and `damaged` is "error"; warns of pictures that are left out.
        """
        count = len(self._found.classes)
        if self.classes is not None:
            refuse_other_classes(self._found.place, count, self.classes)
        if left_out := self._usable.left_out:
            warnings.warn(
                f"{len(left_out)} of the pictures in {self.path} cannot be used, such as "
                f"{left_out[0].place} ({left_out[0].reason}): the run goes without, and "
                "metrics.json lists all",
                stacklevel=2,
            )
        return {"classes": count} if self.classes is None else {}

    def read_split(self, name: SplitName) -> DecodedImages:
        """Find the pictures of one split; raises UserError if there are none."""
        self.class_names = self._found.classes
        source = self._split(name)
        if source is None or len(source.labels) == 0:
            raise UserError(
                f"{self.path} has no pictures for {name}: add some, or change task.val_fraction "
                "and task.test_fraction."
            )
        augmentation = self.augmentation if name == "train" else None
        return DecodedImages(
            source, self.evaluation, self.normalization, self.seed, augmentation, self.cache_bytes
        )

    def details(self) -> dict[str, Any]:
        """How many pictures each split has, and which ones were left out; {} before any is read."""
        if "_usable" not in vars(self):
            return {}
        counts: dict[str, Any] = {
            name: len(source.labels) for name in SPLITS if (source := self._split(name)) is not None
        }
        if self.damaged == "error":
            return {"pictures": counts}
        listed = {left_out.place: left_out.reason for left_out in self._usable.left_out}
        listed |= self.skipped or {}
        return {
            "pictures": {**counts, "skipped": len(listed)},
            "skipped_pictures": [{"picture": at, "reason": why} for at, why in listed.items()],
        }

    def state_dict(self) -> dict[str, Any]:
        """A value that identifies these pictures, for a checkpoint."""
        sources = self._found.splits.values()
        labels = [zlib.crc32(source.labels.numpy().tobytes()) for source in sources]
        return {"labels": labels, "usable": len(self._usable.splits["train"].labels)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Warn if a run resumes with other pictures than it began with."""
        now = self.state_dict()
        if now["labels"] != state_dict["labels"]:
            warnings.warn(
                f"the pictures in {self.path} are no longer those that the checkpoint was trained "
                "on: where validation and test are drawn from them, it may be tested on some that "
                "it was trained on",
                stacklevel=2,
            )
        elif now != state_dict:
            warnings.warn(
                f"{now['usable']} of the training pictures can be used, but {state_dict['usable']} "
                "could when the checkpoint was saved: the rest of its epoch comes in another order",
                stacklevel=2,
            )

    @cached_property
    def _found(self) -> Found:
        return self.find()

    def _split(self, name: SplitName) -> Selection | None:
        """The pictures of a split, or of the one that stands in for it."""
        splits = self._usable.splits
        other: dict[SplitName, SplitName] = {"val": "test", "test": "val"}
        return splits.get(name, splits.get(other.get(name, name)))

    @cached_property
    def _usable(self) -> Usable:
        """The splits without unusable pictures; raises UserError if `damaged` is "error"."""
        found = self._found
        unusable = list(found.unusable)
        if unusable and self.damaged == "error":
            raise unusable[0].refusal()
        sources = list(found.splits.values())
        good = [torch.ones(len(source.labels), dtype=torch.bool) for source in sources]
        for number, row, picture in find_damaged(sources):
            if self.damaged == "error":
                raise picture.refusal()
            good[number][row] = False
            unusable.append(picture)
        usable = dict(zip(found.splits, good, strict=True))
        parts = self._divided(found.splits)
        own = {name: usable[name if name in usable else "train"] for name in parts}
        splits = {
            name: Selection((source, rows[own[name][rows]]))
            for name, (source, rows) in parts.items()
        }
        self.check_training(found, splits.get("train"))
        return Usable(splits, unusable)

    def check_training(self, found: Found, train: Selection | None) -> None:
        """Raise UserError if the remaining training pictures cannot be learnt from."""

    def _divided(self, splits: Mapping[SplitName, EncodedImages]) -> dict[SplitName, Rows]:
        """The splits that the data have, and those drawn from the training pictures."""
        parts = {n: (source, torch.arange(len(source.labels))) for n, source in splits.items()}
        fractions = {"test": self.test_fraction, "val": self.val_fraction}
        for name, purpose in HELD_OUT:
            if name in parts or "train" not in parts or fractions[name] == 0:
                continue
            train, rows = parts["train"]
            kept, held = _hold_out(train, rows, fractions[name], stream(self.seed, purpose))
            parts["train"] = train, kept
            if len(held):
                parts[name] = train, held
        return parts


def _hold_out(
    train: EncodedImages, rows: Tensor, fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The rows that stay and those held out; if any picture has a class, only from those."""
    labels = train.labels[rows]
    eligible = labels >= 0 if train.classes else torch.ones_like(labels, dtype=torch.bool)
    candidates = rows[eligible]
    kept, held = stratified_split(train.labels[candidates], fraction, generator)
    return torch.cat([candidates[kept], rows[~eligible]]), candidates[held]
