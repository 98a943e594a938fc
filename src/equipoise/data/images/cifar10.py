"""CIFAR-10: 32 by 32 pixel photographs of ten classes, from the hub or from parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import datasets
import torch
from torch import Tensor

from equipoise.data.hub import open_splits
from equipoise.data.images.labelled import ImageTable, split_among
from equipoise.data.images.module import ImageDataModule
from equipoise.data.images.splits import MemoryImages, decode_rows
from equipoise.data.images.transforms import CIFAR10, CropAndFlip, Preprocessing, whole_at
from equipoise.data.module import SplitName, check_fraction
from equipoise.data.sampling import stratified_split, stream
from equipoise.errors import UserError

SIZE = 32


@dataclass(kw_only=True, eq=False)
class Cifar10(ImageDataModule):
    """Images (3, 32, 32), decoded once into memory, normalised by the published mean and std.

    `path` is a name on the Hugging Face hub or a folder of parquet files in its layout.
    `val_fraction` of the training images, drawn by `seed` and stratified by class, form the
    validation split; with 0 it is the test split. Without a test split, test is validation.
    `train_size` of the remaining images, drawn in the same way, are trained on; None takes all.
    `augment` crops (padding 4) and flips the training images, as published. The labels must be
    those of `classes` classes, one for each output of the network.
    """

    path: str = "uoft-cs/cifar10"
    batch_size: int = 128
    val_fraction: float = 0.02
    train_size: int | None = None
    augment: bool = True
    classes: int = 10

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        check_fraction("val_fraction", self.val_fraction)
        self._published: Mapping[str, datasets.Dataset] = {}

    @property
    def preprocessing(self) -> Preprocessing:
        """The whole picture at 32 by 32 pixels."""
        return Preprocessing(CIFAR10, whole_at(SIZE))

    def read_split(self, name: SplitName) -> MemoryImages:
        """Decode one split; raises UserError if it is not available or has no images."""
        self._published = self._published or open_splits(self.path)
        published, rows = self._rows(name)
        self.class_names = published.classes
        labels = published.labels[rows]
        if len(labels) == 0:
            raise UserError(f"{self.path} has no images left for {name}: change task.val_fraction.")
        images = decode_rows(published, rows, SIZE)
        augmentation = CropAndFlip(len(rows), self.seed)
        return MemoryImages(
            images, labels, CIFAR10, augmentation if self.augment and name == "train" else None
        )

    def _rows(self, name: SplitName) -> tuple[ImageTable, Tensor]:
        from_test = name == "test" or (name == "val" and self.val_fraction == 0)
        if from_test and "test" in self._published:
            table = self._table("test")
            return table, torch.arange(len(table.labels))
        table = self._table("train")
        train, val = stratified_split(table.labels, self.val_fraction, stream(self.seed))
        return table, self._chosen(train, table.labels) if name == "train" else val

    def _chosen(self, train: Tensor, labels: Tensor) -> Tensor:
        """The rows to train on; raises UserError if there are fewer than requested."""
        if self.train_size is None:
            return train
        if not 1 <= self.train_size <= len(train):
            raise UserError(
                f"task.train_size is {self.train_size}: choose 1 to {len(train)}, the training "
                "images available, or null for all of them."
            )
        fraction = self.train_size / len(train)
        return train[stratified_split(labels[train], fraction, stream(self.seed))[1]]

    def _table(self, name: str) -> ImageTable:
        table = ImageTable(*split_among(self._published, (name,), self.path))
        table.refuse_other_classes(self.classes, whole=name == "train")
        return table
