"""A split of small images that is held in memory and read a whole batch at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from equipoise.data.crop_and_flip import CropAndFlip
from equipoise.data.encoded_images import EncodedImages, decode_rgb
from equipoise.data.loading import Batch
from equipoise.data.normalization import Normalization
from equipoise.data.sampling import BatchIndex
from equipoise.errors import UserError

PROGRESS_AFTER_SECONDS = 2.0


class MemoryImages:
    """uint8 images (N, C, H, W) with labels (N,), augmented if asked for, and normalised."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        normalization: Normalization,
        augmentation: CropAndFlip | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.normalization = normalization
        self.augmentation = augmentation

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.labels)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """Return the batch of the rows in `index`."""
        images = self.images.index_select(0, index.rows)
        if self.augmentation is not None:
            images = self.augmentation(images, index)
        return {
            "image": self.normalization(images),
            "label": self.labels.index_select(0, index.rows),
            "index": index.rows,
        }


def decode_rows(source: EncodedImages, rows: Tensor, size: int) -> Tensor:
    """Decode the images of some rows into one uint8 tensor (N, 3, size, size).

    Shows its progress when it takes long. Raises UserError for an image that is damaged or of
    another size.
    """
    images = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
    numbered = enumerate(rows.tolist())
    progress = tqdm(
        numbered, "Decoding images", len(rows), delay=PROGRESS_AFTER_SECONDS, leave=False
    )
    for position, row in progress:
        image = decode_rgb(source, row)
        if image.shape[-2:] != (size, size):
            raise UserError(
                f"The image {source.describe(row)} is {image.shape[-1]} pixels wide and "
                f"{image.shape[-2]} high, not {size} by {size}: set task.path to the right dataset."
            )
        images[position] = image
    return images
