"""A split of photographs that are decoded anew for each batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2

from equipoise.data.encoded_images import EncodedImages, decode_rgb
from equipoise.data.loading import Batch
from equipoise.data.normalization import Normalization
from equipoise.data.sampling import BatchIndex, stream_seed


class DecodedImages:
    """Decode, transform to one size and normalise the images of a batch.

    The transform's random numbers are a pure function of (seed, epoch, row), whichever process
    decodes, and leave torch's global generator as it was.
    """

    def __init__(
        self,
        source: EncodedImages,
        transform: v2.Transform,
        normalization: Normalization,
        seed: int,
    ) -> None:
        self.source = source
        self.transform = transform
        self.normalization = normalization
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.source.labels)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """Return the batch of the rows in `index`."""
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


def training_transform(size: int) -> v2.Transform:
    """Return a crop of random area and shape, resized to `size`, and a flip for half of them.

    The augmentation of Szegedy et al. 2015, section 6, with torchvision's default ranges.
    """
    return v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()])


def evaluation_transform(size: int) -> v2.Transform:
    """Return the central `size` pixels after resizing the shorter side to 256/224 of it."""
    return v2.Compose([v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)])
