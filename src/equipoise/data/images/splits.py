"""Splits of images that are read a whole batch at a time: from memory, or decoded anew."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2
from tqdm import tqdm

from equipoise.data.images.encoded import EncodedImages, decode_rgb
from equipoise.data.images.transforms import CropAndFlip, Normalization
from equipoise.data.loading import Batch
from equipoise.data.sampling import BatchIndex, stream_seed
from equipoise.errors import UserError

PROGRESS_AFTER_SECONDS = 2.0


@dataclass(eq=False)
class MemoryImages:
    """uint8 images (N, C, H, W) with labels (N,), augmented if asked for, and normalised."""

    images: Tensor
    labels: Tensor
    normalization: Normalization
    augmentation: CropAndFlip | None = None

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.labels)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """The batch of the rows in `index`."""
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


@dataclass(eq=False)
class MemoryScenes:
    """uint8 images (N, C, H, W) with uint8 masks (N, H, W), normalised."""

    images: Tensor
    masks: Tensor
    normalization: Normalization

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.masks)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """{"image", "mask" int64 (B, H, W), "index"} of the rows in `index`."""
        return {
            "image": self.normalization(self.images.index_select(0, index.rows)),
            "mask": self.masks.index_select(0, index.rows).long(),
            "index": index.rows,
        }


@dataclass(eq=False)
class DecodedImages:
    """Decode, transform to one size and normalise the images of a batch.

    The transform's random numbers are a pure function of (seed, epoch, row), whichever process
    decodes, and leave torch's global generator as it was.
    """

    source: EncodedImages
    transform: v2.Transform
    normalization: Normalization
    seed: int

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.source.labels)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """The batch of the rows in `index`."""
        images = torch.stack([self._image(row, index.epoch) for row in index.rows.tolist()])
        return {
            "image": self.normalization(images),
            "label": self.source.labels.index_select(0, index.rows),
            "index": index.rows,
        }

    def _image(self, row: int, epoch: int) -> Tensor:
        pixels = decode_rgb(self.source, row)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also seed the GPU, whose masks belong to the model.
            torch.default_generator.manual_seed(stream_seed(self.seed, epoch, row, 2))
            transformed: Tensor = self.transform(pixels)
        return transformed
