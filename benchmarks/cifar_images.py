"""CIFAR-10 as tensors, from a folder of parquet files in the hub's layout.

    python -m benchmarks.cifar_images FOLDER

says how many images of each split are there. Needs pyarrow, and torchvision or Pillow.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
THREADS = 16
CLASSES = 10


@dataclass
class Pictures:
    """uint8 images (N, C, H, W) with labels (N,), normalised a batch at a time."""

    images: Tensor
    labels: Tensor
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    white: float = 255

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) of mean 0 and standard deviation 1, and labels (B,)."""
        scale = self.images.new_tensor([self.white * s for s in self.std], dtype=torch.float)
        mean = self.images.new_tensor(self.mean, dtype=torch.float) * self.white
        pixels = self.images.index_select(0, rows).float()
        shape = (-1, 1, 1)
        return (pixels - mean.view(shape)) / scale.view(shape), self.labels.index_select(0, rows)

    def to(self, device: str) -> Pictures:
        images, labels = self.images.to(device), self.labels.to(device)
        return Pictures(images, labels, self.mean, self.std, self.white)

    def first(self, count: int) -> Pictures:
        """The first of them."""
        return Pictures(self.images[:count], self.labels[:count], self.mean, self.std, self.white)


def read_split(folder: Path, split: str) -> Pictures:
    """All images of "train" or "test"; exits with a sentence where there are none."""
    import pyarrow.parquet as parquet

    files = sorted(folder.rglob(f"{split}-*.parquet"))
    if not files:
        sys.exit(f"{folder} has no files {split}-*.parquet: name a folder of CIFAR-10 as the hub's")
    tables = [parquet.read_table(file) for file in files]
    encoded = [cell["bytes"] for t in tables for cell in t.column("img").to_pylist()]
    labels = [label for t in tables for label in t.column("label").to_pylist()]
    decode = decoder()
    with ThreadPoolExecutor(THREADS) as pool:
        images = list(pool.map(decode, encoded, chunksize=256))
    return Pictures(torch.stack(images), torch.tensor(labels))


def decoder() -> Callable[[bytes], Tensor]:
    """From the bytes of a picture to uint8 (3, H, W)."""
    try:
        from PIL import Image
    except ImportError:
        from torchvision.io import ImageReadMode, decode_image

        def by_torchvision(data: bytes) -> Tensor:
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return decode_image(buffer, ImageReadMode.RGB)

        return by_torchvision

    def by_pillow(data: bytes) -> Tensor:
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)

    return by_pillow


def random_pictures(count: int, side: int = 32) -> Pictures:
    """Noise, whose brightness tells the class: to try a script without data."""
    labels = torch.arange(count) % CLASSES
    noise = torch.rand(count, 3, side, side) * 55 + 20 * labels.view(-1, 1, 1, 1)
    return Pictures(noise.to(torch.uint8), labels)


if __name__ == "__main__":
    for split in ("train", "test"):
        print(split, tuple(read_split(Path(sys.argv[1]), split).images.shape))
