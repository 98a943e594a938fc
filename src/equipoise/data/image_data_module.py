"""What the image data modules share: three splits, and a loader for each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch.distributed
from lightning.pytorch import LightningDataModule

from equipoise.data.indices import EpochIndices, OrderedIndices, Shard, ShuffledIndices
from equipoise.data.loader import BatchDataset, BatchLoader
from equipoise.errors import UserError

SplitName = Literal["train", "val", "test"]
SPLITS_OF_STAGE: dict[str | None, tuple[SplitName, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
}


class ImageDataModule(LightningDataModule, ABC):
    """Read each split once, when a stage first needs it, and load it in batches.

    A batch is {"image": float32 (B, C, H, W) normalised, "label": int64 (B,), "index": int64 (B,)
    the sample's row in its split}. `batch_size` counts the samples of one process. The training
    order is a pure function of (seed, epoch), and its loader resumes within an epoch; every
    process of a distributed run takes its own part. The last batch of an epoch may be smaller.
    `classes` holds the names of the classes once a split has been read.
    """

    def __init__(
        self, *, batch_size: int, eval_batch_size: int | None, seed: int, num_workers: int
    ) -> None:
        super().__init__()
        _refuse_below("batch_size", batch_size, 1)
        if eval_batch_size is not None:
            _refuse_below("eval_batch_size", eval_batch_size, 1)
        _refuse_below("num_workers", num_workers, 0)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.classes: list[str] = []
        self.splits: dict[SplitName, BatchDataset] = {}

    @abstractmethod
    def read_split(self, name: SplitName) -> BatchDataset:
        """Read one split and set `classes`; raises UserError when it cannot be had."""

    def setup(self, stage: str | None = None) -> None:
        """Read the splits of a stage, "fit", "validate" or "test"; all of them without one."""
        for name in SPLITS_OF_STAGE.get(stage, ("train", "val", "test")):
            if name not in self.splits:
                self.splits[name] = self.read_split(name)

    def train_dataloader(self) -> BatchLoader:
        """Return the shuffled training batches, or a fixed order for `overfit_batches`."""
        size, shard = len(self.splits["train"]), self._shard()
        indices: EpochIndices
        if getattr(self.trainer, "overfit_batches", 0) > 0:
            indices = OrderedIndices(size, self.batch_size, shard)
        else:
            indices = ShuffledIndices(size, self.batch_size, self.seed, shard)
        return self._loader("train", indices)

    def val_dataloader(self) -> BatchLoader:
        """Return the validation batches in their stored order."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> BatchLoader:
        """Return the test batches in their stored order."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, name: SplitName) -> BatchLoader:
        batch_size = self.eval_batch_size or self.batch_size
        return self._loader(name, OrderedIndices(len(self.splits[name]), batch_size, self._shard()))

    def _loader(self, name: SplitName, indices: EpochIndices) -> BatchLoader:
        return BatchLoader(self.splits[name], indices, seed=self.seed, num_workers=self.num_workers)

    def _shard(self) -> Shard:
        if self.trainer is not None:
            return Shard(self.trainer.global_rank, self.trainer.world_size)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return Shard(torch.distributed.get_rank(), torch.distributed.get_world_size())
        return Shard()


def refuse_other_classes(place: str, found: int, classes: int) -> None:
    """Raise UserError unless `place`, a folder or a table, has as many classes as the model."""
    if found != classes:
        raise UserError(
            f"{place} has {found} classes, but task.classes is {classes}: set task.classes={found} "
            "to train on it, or set task.path to the dataset that the model is for."
        )


def check_fraction(name: str, value: float) -> None:
    """Raise UserError unless `value` can be the part of a set that is held out."""
    if not 0 <= value < 1:
        raise UserError(f"task.{name} is {value}: set it to a number from 0 to below 1.")


def _refuse_below(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"task.{name} is {value}: set it to {least} or more.")
