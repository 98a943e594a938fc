"""Splits of images that are loaded a whole batch at a time: from memory, or by decoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2
from tqdm import tqdm

from equipoise.data.images.encoded import EncodedImages, LabelledPixels
from equipoise.data.images.kept import KeptPictures
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

    def several(self, rows: Tensor) -> Tensor:
        """The stored images of some rows, uint8 (B, C, H, W)."""
        return self.images.index_select(0, rows)

    def pixels(self, row: int) -> Tensor:
        """The stored image of a row, uint8 (C, H, W)."""
        return self.images[row]

    def evaluated(self, pixels: Tensor) -> Tensor:
        """What a network sees of such an image outside training: all of it."""
        return pixels


def decode_rows(source: EncodedImages, rows: Tensor, size: int) -> Tensor:
    """Decode the images of some rows into one uint8 tensor (N, 3, size, size).

    Shows its progress if it takes long. Raises UserError for an image that is damaged or has
    another size.
    """
    images = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
    numbered = enumerate(rows.tolist())
    progress = tqdm(
        numbered, "Decoding images", len(rows), delay=PROGRESS_AFTER_SECONDS, leave=False
    )
    for position, row in progress:
        image = source.pixels(row)
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

    `augmentation` replaces the transform if there is one. Its random numbers are a pure function of
    (seed, epoch, row), whichever process decodes, and leave torch's global generator unchanged.
    Whatever is the same in every epoch is kept if all of it fits into `cache_bytes`: the stored
    images for augmentations, the transformed ones for an evaluation.
    """

    source: LabelledPixels
    transform: v2.Transform
    normalization: Normalization
    seed: int
    augmentation: v2.Transform | None = None
    cache_bytes: int = 0

    def __post_init__(self) -> None:
        """Start with an empty cache."""
        rows = len(self.labels)
        self.stored = KeptPictures(self.source.pixels, rows, self.cache_bytes)
        self.seen = KeptPictures(self._seen, rows, self.cache_bytes)

    @property
    def labels(self) -> Tensor:
        """The labels (N,), -1 where an image has none."""
        return self.source.labels

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.labels)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """The batch of the rows in `index`."""
        rows = index.rows.tolist()
        images = (
            self._augmented(rows, index.epoch)
            if self.augmentation
            else map(self.seen.__getitem__, rows)
        )
        return {
            "image": self.normalization(torch.stack(list(images))),
            "label": self.labels.index_select(0, index.rows),
            "index": index.rows,
        }

    def several(self, rows: Tensor) -> Sequence[Tensor]:
        """The stored images of some rows, uint8 (3, H, W)."""
        return [self.pixels(row) for row in rows.tolist()]

    def pixels(self, row: int) -> Tensor:
        """The stored image of a row, uint8 (3, H, W)."""
        return self.stored[row]

    def evaluated(self, pixels: Tensor) -> Tensor:
        """What a network sees of such an image outside training, uint8 (3, S, S)."""
        transformed: Tensor = self.transform(pixels)
        return transformed

    def _seen(self, row: int) -> Tensor:
        return self.evaluated(self.source.pixels(row))

    def _augmented(self, rows: Sequence[int], epoch: int) -> Iterator[Tensor]:
        assert self.augmentation is not None
        with torch.random.fork_rng(devices=[]):
            for row in rows:
                # torch.manual_seed would also seed the GPU, whose masks belong to the model.
                torch.default_generator.manual_seed(stream_seed(self.seed, epoch, row, 2))
                yield self.augmentation(self.stored[row])


class Selection:
    """Some rows of one labelled set of images, or of several one after another.

    parts: the sets, each with the rows (n,) of it that count. The classes are those of the first.
    """

    def __init__(self, *parts: tuple[LabelledPixels, Tensor]) -> None:
        self.classes = parts[0][0].classes
        self.sources: Sequence[LabelledPixels] = [source for source, _ in parts]
        self.labels = torch.cat([source.labels[rows] for source, rows in parts])
        self.rows = torch.cat([rows for _, rows in parts])
        self.ends = torch.tensor([len(rows) for _, rows in parts]).cumsum(0)

    def pixels(self, row: int) -> Tensor:
        """The image of a row, uint8 (C, H, W)."""
        part = int(torch.searchsorted(self.ends, row, right=True))
        return self.sources[part].pixels(int(self.rows[row]))
