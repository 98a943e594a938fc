"""Images of a few classes with their data module, and a small model with an encoder."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from equipoise.data.loading import BatchLoader
from equipoise.data.module import shard_of
from equipoise.data.sampling import BatchIndex, OrderedIndices, ShuffledIndices

CLASSES, SIZE = 3, 4


class Encoder(nn.Module):
    features = 24

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(SIZE * SIZE, 24), nn.BatchNorm1d(24), nn.ReLU()
        )
        self.modes: set[bool] = set()

    def forward(self, image: Tensor) -> Tensor:
        self.modes.add(self.training)
        features: Tensor = self.layers(image)
        return features


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = Encoder()


class Images:
    """Noise around the picture of each class; the noise is another one in each augmented epoch."""

    def __init__(self, rows: int, *, augment: bool = False) -> None:
        generator = torch.Generator().manual_seed(rows)
        self.labels = torch.arange(rows) % CLASSES
        pictures = torch.randn(CLASSES, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        noise = 0.3 * torch.randn(rows, 1, SIZE, SIZE, generator=generator)
        self.images = 0.5 + pictures[self.labels] + noise
        self.augment = augment
        self.epochs: list[int] = []

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: BatchIndex) -> dict[str, Tensor]:
        self.epochs.append(index.epoch)
        generator = torch.Generator().manual_seed(index.epoch)
        noise = torch.randn(self.images.shape, generator=generator)[index.rows]
        images = self.images[index.rows] + 0.1 * self.augment * noise
        return {"image": images, "label": self.labels[index.rows], "index": index.rows}


class Data(LightningDataModule):
    def __init__(self, rows: int = 60) -> None:
        super().__init__()
        self.rows = rows
        self.labelled = True

    def labelled_dataloader(self, *, augment: bool, batch_size: int) -> BatchLoader:
        self.train = Images(self.rows, augment=augment)
        order = ShuffledIndices(self.rows, batch_size, 0, shard_of(self))
        return BatchLoader(self.train, order, seed=0, num_workers=0)  # type: ignore[arg-type]

    def test_dataloader(self) -> BatchLoader:
        images = Images(31)
        order = OrderedIndices(31, 16, shard_of(self))
        return BatchLoader(images, order, seed=0, num_workers=0)  # type: ignore[arg-type]
