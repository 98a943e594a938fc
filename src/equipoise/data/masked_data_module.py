"""What the data modules of photographs with masks share: crops, whole images, checks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from equipoise.data.image_data_module import ImageDataModule, SplitName
from equipoise.data.masked_files import MaskedFiles
from equipoise.data.masked_images import MaskedImages
from equipoise.data.normalization import IMAGENET
from equipoise.data.scale_crop_and_flip import ScaleCropAndFlip
from equipoise.errors import UserError

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class MaskedDataModule(ImageDataModule):
    """Random crops (3, *crop) of scaled images for training, whole images for validation and test.

    A batch is {"image" float32 (B, 3, H, W) normalised, "mask" int64 (B, H, W) with 255 for pixels
    that do not count, "index" (B,)}. An epoch goes through the training images as often as it takes
    to have `min_crops_per_epoch` crops, once at least. Without `augment` training images are whole
    as well, and each comes once. Whole images are padded to multiples of `pad_multiple`.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        eval_batch_size: int | None,
        seed: int,
        num_workers: int,
        crop: Sequence[int],
        scales: Sequence[float],
        augment: bool,
        min_crops_per_epoch: int,
        pad_multiple: int,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
            num_workers=num_workers,
        )
        if len(crop) != 2 or min(crop) < 1:
            raise UserError(f"task.crop is {list(crop)}: set it to [height,width] in pixels.")
        if len(scales) != 2 or not 0 < scales[0] <= scales[1]:
            raise UserError(f"task.scales is {list(scales)}: set it to [least,most] above 0.")
        if pad_multiple < 1:
            raise UserError(f"task.pad_multiple is {pad_multiple}: set it to 1 or more.")
        if min_crops_per_epoch < 1:
            raise UserError(
                f"task.min_crops_per_epoch is {min_crops_per_epoch}: set it to 1 or more."
            )
        self.crop = tuple(crop)
        self.scales = tuple(scales)
        self.augment = augment
        self.min_crops_per_epoch = min_crops_per_epoch
        self.pad_multiple = pad_multiple

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
