"""A split of photographs with masks that are decoded anew for each batch."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.data.loading import Batch
from equipoise.data.masked_files import MaskedFiles
from equipoise.data.normalization import Normalization
from equipoise.data.sampling import BatchIndex
from equipoise.data.scale_crop_and_flip import ScaleCropAndFlip, pad


class MaskedImages:
    """Decode, augment if asked for, and normalise the images of a batch with their masks.

    Without augmentation images are whole: padded below and on the right to one size, that of the
    largest of the batch rounded up to `multiple`; the padding is black before normalisation and
    does not count (class 255). With `passes` above 1 an epoch holds each image so many times, each
    time with another crop.
    """

    def __init__(
        self,
        source: MaskedFiles,
        normalization: Normalization,
        augmentation: ScaleCropAndFlip | None,
        multiple: int,
        passes: int = 1,
    ) -> None:
        self.source = source
        self.normalization = normalization
        self.augmentation = augmentation
        self.multiple = multiple
        self.passes = passes

    def __len__(self) -> int:
        """Return the number of samples of an epoch."""
        return self.passes * len(self.source)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """Return {"image", "mask" int64 (B, H, W), "index"} of the rows in `index`."""
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
        pair = self.source.read(row)
        if self.augmentation is None:
            return pair
        return self.augmentation(*pair, epoch * self.passes + earlier_passes, row)

    def _whole(self, sizes: Tensor) -> list[int]:
        largest = sizes.max(dim=0).values
        whole: list[int] = (-(-largest // self.multiple) * self.multiple).tolist()
        return whole
