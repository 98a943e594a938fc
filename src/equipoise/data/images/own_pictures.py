"""What the data modules of pictures of the user's own share: splits, classes, damaged files."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2

from equipoise.data.images.damage import Unusable, find_damaged
from equipoise.data.images.encoded import EncodedImages
from equipoise.data.images.module import ImageDataModule, refuse_other_classes
from equipoise.data.images.splits import DecodedImages, Selection
from equipoise.data.images.transforms import (
    GREY,
    IMAGENET,
    Grey,
    Normalization,
    Preprocessing,
    evaluation_transform,
    training_transform,
)
from equipoise.data.module import SPLITS, SplitName, check_fraction
from equipoise.data.sampling import stratified_split, stream
from equipoise.errors import UserError

LEAST_CLASSES = 2
HELD_OUT: tuple[tuple[SplitName, int], ...] = (("test", 5), ("val", 6))
"""The splits that are drawn where the data have none, and what tells their draws from others."""

Rows = tuple[EncodedImages, Tensor]


@dataclass
class Found:
    """The pictures of each split that the data have, all of one list of classes.

    place: where they lie, in the words of a message. unusable: what was seen to be of no use
    already.
    """

    place: str
    splits: dict[SplitName, EncodedImages]
    unusable: list[Unusable] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, the same of all splits."""
        return next(iter(self.splits.values())).classes


class Usable(NamedTuple):
    """The rows of each split that can be trained on or tested, and what was left out."""

    splits: dict[SplitName, Selection]
    left_out: list[Unusable]


@dataclass(kw_only=True, eq=False)
class OwnPictures(ImageDataModule):
    """Pictures of any size and mode as (3, image_size, image_size), decoded anew for each batch.

    Where the data have no split test or val, `test_fraction` of the training pictures and
    `val_fraction` of the others are drawn by `seed`, with the same mixture of classes. Without a
    test split, test is validation, and the other way round. `classes` null: counted.

    Every picture is decoded once before the run begins. `damaged`: "error" refuses a run at the
    first that cannot be, "skip" leaves such pictures out. Splits are drawn of all pictures, damaged
    ones among them, so that a file that breaks or is repaired moves no other from one split to
    another; the training order is a pure function of (seed, epoch) and the usable pictures.
    """

    path: str | None = None
    batch_size: int = 64
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    classes: int | None = None
    image_size: int = 64
    damaged: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        check_fraction("val_fraction", self.val_fraction)
        check_fraction("test_fraction", self.test_fraction)

    @abstractmethod
    def find(self) -> Found:
        """Find the pictures of each split; raises UserError where there are none."""

    @property
    def normalization(self) -> Normalization:
        """What becomes of pixels in the end."""
        return IMAGENET

    @property
    def evaluation(self) -> v2.Transform:
        """What becomes of a picture that is not augmented."""
        return evaluation_transform(self.image_size)

    @property
    def augmentation(self) -> v2.Transform | None:
        """What takes its place in training; None: nothing does."""
        return None

    @property
    def preprocessing(self) -> Preprocessing:
        """The same of pictures of any number of channels."""
        return Preprocessing(self.normalization, self.evaluation)

    def inspect(self) -> dict[str, Any]:
        """Find and decode all pictures before a run begins; {"classes": their number}, if null.

        Raises UserError where there are no pictures, or classes of another number, and for a
        damaged picture where `damaged` says so; warns of those that are left out.
        """
        count = len(self._found.classes)
        if self.classes is not None:
            refuse_other_classes(self._found.place, count, self.classes)
        if left_out := self._usable.left_out:
            warnings.warn(
                f"{len(left_out)} of the pictures in {self.path} cannot be used and are left out, "
                f"such as {left_out[0].place} ({left_out[0].reason}): metrics.json lists all",
                stacklevel=2,
            )
        return {"classes": count} if self.classes is None else {}

    def read_split(self, name: SplitName) -> DecodedImages:
        """Find the pictures of one split; raises UserError when there are none."""
        self.class_names = self._found.classes
        source = self._split(name)
        if source is None or len(source.labels) == 0:
            raise UserError(
                f"{self.path} has no pictures for {name}: add some, or change task.val_fraction "
                "and task.test_fraction."
            )
        augmentation = self.augmentation if name == "train" else None
        return DecodedImages(source, self.evaluation, self.normalization, self.seed, augmentation)

    def details(self) -> dict[str, Any]:
        """How many pictures each split has, and which ones were left out; {} before any is read."""
        if "_usable" not in vars(self):
            return {}
        counts: dict[str, Any] = {
            name: len(source.labels) for name in SPLITS if (source := self._split(name)) is not None
        }
        if self.damaged == "error":
            return {"pictures": counts}
        return {
            "pictures": {**counts, "skipped": len(self._usable.left_out)},
            "skipped_pictures": [
                {"picture": left_out.place, "reason": left_out.reason}
                for left_out in self._usable.left_out
            ],
        }

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
        """The splits without what cannot be used; raises UserError where there may be none."""
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
        """Raise UserError where the training pictures that are left cannot be learnt from."""

    def _divided(self, splits: Mapping[SplitName, EncodedImages]) -> dict[SplitName, Rows]:
        """The splits that the data have, and those that are drawn of the training pictures."""
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
    """The rows that stay and those held out; of pictures with classes only, where there are any."""
    labels = train.labels[rows]
    eligible = labels >= 0 if train.classes else torch.ones_like(labels, dtype=torch.bool)
    candidates = rows[eligible]
    kept, held = stratified_split(train.labels[candidates], fraction, generator)
    return torch.cat([candidates[kept], rows[~eligible]]), candidates[held]


@dataclass(kw_only=True, eq=False)
class ClassifiedPictures(OwnPictures):
    """Pictures that all have a class, as (image_channels, image_size, image_size).

    `image_channels` is 3, or 1 for grey. `augment` draws crops of `crop_scale` of the area and of
    random shape, and mirrors a `flip_probability` of the training pictures; otherwise they are
    cropped in the centre like the others. `names` are those of the classes in the order of the
    network's outputs; null: those that the training pictures have, sorted. A checkpoint keeps
    them, so that other pictures are told apart by the same.
    """

    batch_size: int = 16
    num_workers: int = 4
    image_size: int = 128
    names: Sequence[str] | None = None
    image_channels: int = 3
    augment: bool = True
    crop_scale: Sequence[float] = (0.35, 1.0)
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        if self.image_channels not in (1, 3):
            raise UserError(
                f"task.image_channels is {self.image_channels}: set it to 3, or to 1 for grey."
            )
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError(
                f"task.crop_scale is {list(self.crop_scale)}: set it to [least,most], parts of the "
                "area above 0 and up to 1."
            )

    @property
    def normalization(self) -> Normalization:
        """That of ImageNet, or its grey."""
        return IMAGENET if self.image_channels == 3 else GREY

    @property
    def evaluation(self) -> v2.Transform:
        """The central pixels at `image_size`."""
        return self._channelled(super().evaluation)

    @property
    def augmentation(self) -> v2.Transform | None:
        """Crops of random area and shape, and flips."""
        if not self.augment:
            return None
        scale, flip = self.crop_scale, self.flip_probability
        return self._channelled(training_transform(self.image_size, scale, flip))

    def inspect(self) -> dict[str, Any]:
        """Find and decode all pictures; {"classes", "names"}, those of both that are null."""
        if self.names is not None and self.classes is not None:
            refuse_other_classes("task.names", len(self.names), self.classes)
        settled = super().inspect()
        return settled if self.names is not None else {**settled, "names": self._found.classes}

    def check_training(self, found: Found, train: Selection | None) -> None:
        """Raise UserError where a class has no picture left, or where there are no two classes."""
        if len(found.classes) < LEAST_CLASSES:
            raise UserError(
                f"{found.place} has {'only the class ' if found.classes else 'no classes'}"
                f"{''.join(found.classes)}, and there is nothing to learn: two are needed."
            )
        if train is None:
            return
        there, left = Counter(found.splits["train"].labels.tolist()), set(train.labels.tolist())
        for label, name in enumerate(found.classes):
            if there[label] and label not in left:
                raise UserError(
                    f"The class {name} of {found.place} has no picture left to train on, of "
                    f"{there[label]}: add some, or lower task.val_fraction and task.test_fraction."
                )

    def _channelled(self, transform: v2.Transform) -> v2.Transform:
        return transform if self.image_channels == 3 else v2.Compose([Grey(), transform])
