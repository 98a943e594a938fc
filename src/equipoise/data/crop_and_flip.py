"""The published augmentation of CIFAR-10, for whole batches."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from equipoise.data.sampling import BatchIndex, stream


class CropAndFlip:
    """Per sample a random crop of the padded image, and a horizontal flip for half of them.

    The same images as torchvision's `v2.RandomCrop(size, padding=4)` followed by
    `v2.RandomHorizontalFlip()` with independent draws for each sample (He et al. 2016,
    section 4.2). The draws are a pure function of (seed, epoch, row): each epoch draws one table
    with a row for every sample of the split.
    """

    def __init__(self, samples: int, seed: int, padding: int = 4) -> None:
        self.samples = samples
        self.seed = seed
        self.padding = padding
        self._epoch = -1
        self._draws = torch.empty(0)

    def __call__(self, images: Tensor, index: BatchIndex) -> Tensor:
        """Return new images (B, C, H, W) for the rows and the epoch of `index`."""
        top, left, flip = self.draws(index)
        height, width = images.shape[-2:]
        padded = functional.pad(images, [self.padding] * 4)
        # A view of every possible crop: (B, C, tops, lefts, H, W).
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        cropped = windows[torch.arange(len(images)), :, top, left]
        cropped[flip] = functional.horizontal_flip(cropped[flip])
        return cropped

    def draws(self, index: BatchIndex) -> tuple[Tensor, Tensor, Tensor]:
        """Return top, left (int64, 0 to 2 * padding) and flip (bool), each (B,)."""
        if index.epoch != self._epoch:
            generator = stream(self.seed, index.epoch, 1)
            self._draws = torch.rand(self.samples, 3, generator=generator)
            self._epoch = index.epoch
        top, left, flip = self._draws[index.rows].unbind(1)
        positions = 2 * self.padding + 1
        return (top * positions).long(), (left * positions).long(), flip < 0.5
