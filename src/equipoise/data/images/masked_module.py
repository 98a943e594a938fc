"""What the data modules of photographs with masks share: crops, whole images, checks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from equipoise.data.images.kept import KeptPictures
from equipoise.data.images.masked_files import MaskedFiles
from equipoise.data.images.module import DecodingDataModule
from equipoise.data.images.transforms import (
    IMAGENET,
    Normalization,
    Preprocessing,
    ScaleCropAndFlip,
    pad,
)
from equipoise.data.loading import Batch
from equipoise.data.module import SPLITS, SplitName, refuse_below
from equipoise.data.sampling import BatchIndex
from equipoise.errors import UserError


@dataclass(eq=False)
class MaskedImages:
    """Decode, augment if asked for, and normalise the images of a batch with their masks.

    Without augmentation images are whole: padded below and on the right to the size of the largest
    in the batch, rounded up to `multiple`; the padding is black before normalisation and does not
    count (class 255). An epoch holds each image `passes` times, each time with a different crop.
    Decoded pairs are kept if all of them fit into `cache_bytes`.
    """

    source: MaskedFiles
    normalization: Normalization
    augmentation: ScaleCropAndFlip | None
    multiple: int
    passes: int = 1
    cache_bytes: int = 0

    def __post_init__(self) -> None:
        """Start with an empty cache."""
        self.pairs = KeptPictures(self._in_one, len(self.source), self.cache_bytes)

    def __len__(self) -> int:
        """The number of samples in an epoch."""
        return self.passes * len(self.source)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """{"image", "mask" int64 (B, H, W), "index"} of the rows in `index`."""
        pairs = [self._read(row, index.epoch) for row in index.rows.tolist()]
        sizes = torch.tensor([mask.shape for _, mask in pairs])
        height, width = self._whole(sizes) if self.augmentation is None else sizes[0].tolist()
        padded = [pad(image, mask, height, width) for image, mask in pairs]
        return {
            "image": self.normalization(torch.stack([image for image, _ in padded])),
            "mask": torch.stack([mask for _, mask in padded]).long(),
            "index": index.rows,
        }

    def _read(self, sample: int, epoch: int) -> tuple[Tensor, Tensor]:
        earlier_passes, row = divmod(sample, len(self.source))
        kept = self.pairs[row]
        pair = kept[:-1], kept[-1]
        if self.augmentation is None:
            return pair
        return self.augmentation(*pair, epoch * self.passes + earlier_passes, row)

    def _in_one(self, row: int) -> Tensor:
        """An image and its mask as one picture of four channels, uint8 (4, H, W)."""
        image, mask = self.source.read(row)
        return torch.cat([image, mask.unsqueeze(0)])

    def _whole(self, sizes: Tensor) -> list[int]:
        largest = sizes.max(dim=0).values
        whole: list[int] = (-(-largest // self.multiple) * self.multiple).tolist()
        return whole


@dataclass(kw_only=True, eq=False)
class MaskedDataModule(DecodingDataModule):
    """Random crops (3, *crop) of scaled images for training, whole images for validation and test.

    A batch is {"image" float32 (B, 3, H, W) normalised, "mask" int64 (B, H, W) with 255 for pixels
    that do not count, "index" (B,)}. An epoch goes through the training images as often as needed
    for `min_crops_per_epoch` crops, at least once. Without `augment` training images are whole too,
    and each occurs once. Whole images are padded to multiples of `pad_multiple`.
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
        """Raise UserError if whole images are padded to sizes that the network cannot divide.

        `model.image_multiple` is the multiple it needs; a model without one accepts any size.
        """
        multiple = getattr(model, "image_multiple", 1)
        if self.pad_multiple % multiple:
            raise UserError(
                f"task.pad_multiple={self.pad_multiple} leaves whole images with sides that the "
                f"model's branches cannot divide: set it to a multiple of {multiple}"
            )

    @property
    def preprocessing(self) -> Preprocessing:
        """The whole picture, padded."""
        return Preprocessing(IMAGENET, multiple=self.pad_multiple)

    @abstractmethod
    def find_files(self, name: SplitName) -> MaskedFiles:
        """Find the pairs of a split; raises UserError if there are none or one is incomplete."""

    def inspect(self) -> dict[str, Any]:
        """Find all files and compare their sizes before a run begins; determines no settings.

        Raises UserError, which names the file, if one is missing or does not fit.
        """
        for name in SPLITS:
            self.find_files(name).check_sizes()
        return {}

    def read_split(self, name: SplitName) -> MaskedImages:
        """Find the images of one split; raises UserError if it is not available."""
        files = self.find_files(name)
        if name != "train" or not self.augment:
            return MaskedImages(
                files, IMAGENET, None, self.pad_multiple, cache_bytes=self.cache_bytes
            )
        augmentation = ScaleCropAndFlip(self.crop, self.scales, self.seed)
        passes = -(-self.min_crops_per_epoch // len(files))
        return MaskedImages(
            files, IMAGENET, augmentation, self.pad_multiple, passes, self.cache_bytes
        )
