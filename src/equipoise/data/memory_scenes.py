"""A split of small images with masks that is held in memory and read a whole batch at a time."""

from __future__ import annotations

from torch import Tensor

from equipoise.data.loading import Batch
from equipoise.data.normalization import Normalization
from equipoise.data.sampling import BatchIndex


class MemoryScenes:
    """uint8 images (N, C, H, W) with uint8 masks (N, H, W), normalised."""

    def __init__(self, images: Tensor, masks: Tensor, normalization: Normalization) -> None:
        self.images = images
        self.masks = masks
        self.normalization = normalization

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.masks)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """Return {"image", "mask" int64 (B, H, W), "index"} of the rows in `index`."""
        return {
            "image": self.normalization(self.images.index_select(0, index.rows)),
            "mask": self.masks.index_select(0, index.rows).long(),
            "index": index.rows,
        }
