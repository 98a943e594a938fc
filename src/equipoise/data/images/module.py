"""What the image data modules share: class names, and splits stratified by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from equipoise.data.images.kept import MIB
from equipoise.data.images.transforms import Preprocessing
from equipoise.data.module import SplitDataModule, refuse_below
from equipoise.errors import DataDiffer, UserError


@dataclass(kw_only=True, eq=False)
class ImageDataModule(SplitDataModule):
    """Images with labels or masks, of classes that have names.

    A batch is {"image": float32 (B, C, H, W) normalised, "label": int64 (B,), "index": int64 (B,)
    the sample's row in its split}. `read_split` sets `class_names`. A field `classes`, or
    `mask_classes` for masks, is the network's number of outputs for them.
    """

    counted_by: ClassVar[str] = "classes"

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        self.class_names: list[str] = []

    @property
    def preprocessing(self) -> Preprocessing:
        """How validation and test images are preprocessed. Raises UserError unless overridden.

        A subclass whose model is to predict for pictures from elsewhere overrides it.
        """
        raise UserError(
            f"{type(self).__name__} does not say how it preprocesses its pictures: give it a "
            "property `preprocessing`"
        )

    def preprocess(self, pixels: Tensor) -> Tensor:
        """What the network sees of a picture in evaluation: uint8 (C, H, W) -> float32.

        White is 255, even if the data themselves use another maximum. The result equals that for a
        picture of the data's own test split.
        """
        return self.preprocessing(pixels)

    def mask_at(self, mask: Tensor, size: Sequence[int]) -> Tensor:
        """The mask of a picture, from that of what the network saw of it: size = (H, W)."""
        return mask[: size[0], : size[1]]

    def mask_numbers(self) -> Sequence[int] | None:
        """The number of each class in mask files; None if they are 0, 1, ..."""
        return None

    def mask_colours(self) -> Sequence[tuple[int, int, int]] | None:
        """The colour of each class, if the dataset publishes colours."""
        return None

    def setup(self, stage: str | None = None) -> None:
        """Read the splits of a stage; raises UserError if a class would have no output."""
        super().setup(stage)
        outputs, names = getattr(self, self.counted_by, None), self.class_names
        if isinstance(outputs, int) and len(names) > outputs:
            raise UserError(
                f"task.{self.counted_by}={outputs} is too few: the data has {len(names)} classes, "
                f"from {names[0]} to {names[-1]}"
            )


@dataclass(kw_only=True, eq=False)
class DecodingDataModule(ImageDataModule):
    """Images that are decoded during a run, and kept if a split fits into memory.

    `cache_mb`: MiB for the decoded images of a split. A split that needs more is decoded anew in
    each epoch. Worker processes share the kept images. 0: nothing is kept. `damaged`: "error" ends
    a run at the first image that cannot be decoded, "skip" leaves such images out of batches.
    """

    cache_mb: int = 512
    damaged: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        refuse_below(self, 0, "cache_mb")
        self.skipped = {} if self.damaged == "skip" else None

    def details(self) -> dict[str, Any]:
        """The images that had to be left out during the run."""
        if not self.skipped:
            return {}
        listed = [{"picture": place, "reason": why} for place, why in self.skipped.items()]
        return {"skipped_pictures": listed}

    @property
    def cache_bytes(self) -> int:
        """The same in bytes."""
        return self.cache_mb * MIB


def refuse_other_classes(place: str, count: int, classes: int) -> None:
    """Raise DataDiffer unless `place`, a folder or a table, has as many classes as the model."""
    if count != classes:
        raise DataDiffer(
            f"{place} has {count} classes",
            f"task.classes is {classes}",
            f"set task.classes={count} to train on it, or set task.path to the dataset that the "
            "model is for",
        )
