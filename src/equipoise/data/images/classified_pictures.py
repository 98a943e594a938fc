"""What classification tasks on the user's own pictures share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torchvision.transforms import v2

from equipoise.data.images.module import refuse_other_classes
from equipoise.data.images.own_pictures import Found, OwnPictures
from equipoise.data.images.splits import Selection
from equipoise.data.images.transforms import (
    GREY,
    IMAGENET,
    Grey,
    Normalization,
    training_transform,
    whole_at,
)
from equipoise.errors import UserError

LEAST_CLASSES = 2


@dataclass(kw_only=True, eq=False)
class ClassifiedPictures(OwnPictures):
    """Pictures that all have a class, as (image_channels, image_size, image_size).

    `image_channels` is 3, or 1 for grey. `augment` crops training pictures at random to
    `crop_scale` of the area, in random shapes, and mirrors a fraction `flip_probability` of them;
    otherwise they are treated like the others: the shorter side is resized, and the middle of the
    longer one kept. `names` are those of the classes in the order of the network's outputs; null:
    the classes of the training pictures, sorted. A checkpoint keeps the names, so that other
    pictures are classified by the same.
    """

    batch_size: int = 16
    num_workers: int = 8
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
                f"task.crop_scale is {list(self.crop_scale)}: set it to [least,most], fractions of "
                "the area above 0 and up to 1."
            )

    @property
    def normalization(self) -> Normalization:
        """ImageNet's normalisation, or its grey version."""
        return IMAGENET if self.image_channels == 3 else GREY

    @property
    def evaluation(self) -> v2.Transform:
        """The picture with its shorter side at `image_size`; of a longer one the middle."""
        return self._channelled(whole_at(self.image_size))

    @property
    def augmentation(self) -> v2.Transform | None:
        """Crops of random area and shape, and flips."""
        if not self.augment:
            return None
        scale, flip = self.crop_scale, self.flip_probability
        return self._channelled(training_transform(self.image_size, scale, flip))

    def inspect(self) -> dict[str, Any]:
        """Find and decode all pictures; return those of {"classes", "names"} that are null."""
        if self.names is not None and self.classes is not None:
            refuse_other_classes("task.names", len(self.names), self.classes)
        settled = super().inspect()
        return settled if self.names is not None else {**settled, "names": self._found.classes}

    def check_training(self, found: Found, train: Selection | None) -> None:
        """Raise UserError if a class has no picture left, or there are fewer than two."""
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
