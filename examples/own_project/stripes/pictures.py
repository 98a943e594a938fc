"""Grey pictures of stripes in noise, generated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from equipoise.data.images.module import ImageDataModule
from equipoise.data.images.splits import MemoryImages
from equipoise.data.images.transforms import Normalization, Preprocessing, whole_at
from equipoise.data.module import SPLITS, SplitName

DIRECTIONS = ("horizontal", "rising", "vertical", "falling")
NORMALIZATION = Normalization(mean=(0.5,), std=(0.16,))


@dataclass(kw_only=True, eq=False)
class Stripes(ImageDataModule):
    """Pictures (1, S, S) of stripes that run in one of four directions, in normal noise."""

    batch_size: int = 64
    image_size: int = 16
    train_size: int = 640
    noise: float = 0.7  # standard deviation; that of the stripes is 0.7

    @property
    def preprocessing(self) -> Preprocessing:
        """How `predict` makes of a picture from elsewhere what the network sees."""
        return Preprocessing(NORMALIZATION, whole_at(self.image_size))

    def read_split(self, name: SplitName) -> MemoryImages:
        """Draw one split; validation and test are half as large as the training split."""
        self.class_names = list(DIRECTIONS)
        generator = torch.Generator().manual_seed(3 * self.seed + SPLITS.index(name))
        count = self.train_size if name == "train" else self.train_size // 2
        labels = torch.randint(len(DIRECTIONS), (count,), generator=generator)
        angle = (labels * math.pi / 4)[:, None, None]
        y, x = torch.meshgrid(*[torch.arange(self.image_size)] * 2, indexing="ij")
        phase = 2 * math.pi * torch.rand(count, 1, 1, generator=generator)
        waves = torch.sin(1.3 * (x * angle.sin() + y * angle.cos()) + phase)
        pictures = waves + self.noise * torch.randn(waves.shape, generator=generator)
        pixels = (128 + 40 * pictures).clamp(0, 255).to(torch.uint8).unsqueeze(1)
        return MemoryImages(pixels, labels, NORMALIZATION)
