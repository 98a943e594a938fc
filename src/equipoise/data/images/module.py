"""What the image data modules share: names of classes, and splits of the same mixture of them."""

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
    `mask_classes` for masks, says how many outputs the network has for them.
    """

    counted_by: ClassVar[str] = "classes"

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        self.class_names: list[str] = []

    @property
    def preprocessing(self) -> Preprocessing:
        """What becomes of an image of validation or test. Raises UserError where it does not tell.

        A subclass that is to serve pictures from elsewhere says what it does with its own.
        """
        raise UserError(
            f"{type(self).__name__} does not tell what it does with its pictures: give it a "
            "property `preprocessing`"
        )

    def preprocess(self, pixels: Tensor) -> Tensor:
        """What the network sees of a picture in evaluation: uint8 (C, H, W) -> float32.

        White is 255, also where the data themselves count otherwise. The same as of a picture of
        the data's own test split.
        """
        return self.preprocessing(pixels)

    def mask_at(self, mask: Tensor, size: Sequence[int]) -> Tensor:
        """A mask of what the network saw of a picture, as one of the picture: size = (H, W)."""
        return mask[: size[0], : size[1]]

    def mask_numbers(self) -> Sequence[int] | None:
        """The number of each class in the files of masks, None where they are 0, 1, ..."""
        return None

    def mask_colours(self) -> Sequence[tuple[int, int, int]] | None:
        """The colour of each class, where the dataset has published some."""
        return None

    def setup(self, stage: str | None = None) -> None:
        """Read the splits of a stage; raises UserError where a class would have no output."""
        super().setup(stage)
        outputs, names = getattr(self, self.counted_by, None), self.class_names
        if isinstance(outputs, int) and len(names) > outputs:
            raise UserError(
                f"task.{self.counted_by}={outputs} is too few: the data has {len(names)} classes, "
                f"from {names[0]} to {names[-1]}"
            )


@dataclass(kw_only=True, eq=False)
class DecodingDataModule(ImageDataModule):
    """Images that are decoded while a run goes on, and kept where a split fits into memory.

    `cache_mb`: MiB that the decoded images of a split may take. One that needs more is decoded anew
    in each epoch. Worker processes share what is kept. 0: nothing is. `damaged`: "error" ends a run
    at the first image that cannot be decoded, "skip" leaves such out of their batches.
    """

    cache_mb: int = 512
    damaged: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        refuse_below(self, 0, "cache_mb")
        self.skipped = {} if self.damaged == "skip" else None

    def details(self) -> dict[str, Any]:
        """Which images had to be left out while the run was at work."""
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
