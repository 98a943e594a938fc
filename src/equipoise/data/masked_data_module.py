"""What the data modules of photographs with masks share: crops, whole images, checks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from equipoise.data.image_data_module import ImageDataModule
from equipoise.data.masked_files import MaskedFiles
from equipoise.data.masked_images import MaskedImages
from equipoise.data.module import SPLITS, SplitName, refuse_below
from equipoise.data.normalization import IMAGENET
from equipoise.data.scale_crop_and_flip import ScaleCropAndFlip
from equipoise.errors import UserError


@dataclass(kw_only=True, eq=False)
class MaskedDataModule(ImageDataModule):
    """Random crops (3, *crop) of scaled images for training, whole images for validation and test.

    A batch is {"image" float32 (B, 3, H, W) normalised, "mask" int64 (B, H, W) with 255 for pixels
    that do not count, "index" (B,)}. An epoch goes through the training images as often as it takes
    to have `min_crops_per_epoch` crops, once at least. Without `augment` training images are whole
    as well, and each comes once. Whole images are padded to multiples of `pad_multiple`.
    """

    counted_by: ClassVar[str] = "mask_classes"

    path: str | None = None
    eval_batch_size: int | None = 1
    crop: Sequence[int]
    scales: Sequence[float]
    augment: bool = True
    min_crops_per_epoch: int = 1
    pad_multiple: int = 32

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        if len(self.crop) != 2 or min(self.crop) < 1:
            raise UserError(f"task.crop is {list(self.crop)}: set it to [height,width] in pixels.")
        if len(self.scales) != 2 or not 0 < self.scales[0] <= self.scales[1]:
            raise UserError(f"task.scales is {list(self.scales)}: set it to [least,most] above 0.")
        refuse_below(self, 1, "pad_multiple", "min_crops_per_epoch")

    def check_model(self, model: object) -> None:
        """Raise UserError where whole images are padded to sizes that the network cannot divide.

        `model.image_multiple` is what it asks for; where it asks for nothing, everything fits.
        """
        multiple = getattr(model, "image_multiple", 1)
        if self.pad_multiple % multiple:
            raise UserError(
                f"task.pad_multiple={self.pad_multiple} leaves whole images with sides that the "
                f"model's branches cannot divide: set it to a multiple of {multiple}"
            )

    @abstractmethod
    def find_files(self, name: SplitName) -> MaskedFiles:
        """Find the pairs of a split; raises UserError when there are none or one is incomplete."""

    def inspect(self) -> dict[str, Any]:
        """Find all files and compare their sizes, before a run begins; tells no settings.

        Raises UserError, which names the file that is missing or does not fit.
        """
        for name in SPLITS:
            self.find_files(name).check_sizes()
        return {}

    def read_split(self, name: SplitName) -> MaskedImages:
        """Find the images of one split; raises UserError when it cannot be had."""
        files = self.find_files(name)
        if name != "train" or not self.augment:
            return MaskedImages(files, IMAGENET, None, self.pad_multiple)
        augmentation = ScaleCropAndFlip(self.crop, self.scales, self.seed)
        passes = -(-self.min_crops_per_epoch // len(files))
        return MaskedImages(files, IMAGENET, augmentation, self.pad_multiple, passes)
