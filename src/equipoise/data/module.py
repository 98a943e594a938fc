"""What data modules share: three splits, a loader for each, and checks of their settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch.distributed
from lightning.pytorch import LightningDataModule

from equipoise.data.loading import BatchDataset, BatchLoader
from equipoise.data.sampling import EpochIndices, OrderedIndices, Shard, ShuffledIndices
from equipoise.errors import UserError

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
SPLITS_OF_STAGE: dict[str | None, tuple[SplitName, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
}


@dataclass(kw_only=True, eq=False)
class SplitDataModule(LightningDataModule, ABC):
    """Read each split once, when a stage first needs it, and load it in batches.

    Its settings are dataclass fields, as are those of its subclasses, which check them in
    `__post_init__`. `batch_size` counts the samples of one process. The training order is a pure
    function of (seed, epoch), and its loader resumes within an epoch; every process of a
    distributed run takes its own part. The last batch of an epoch may be smaller. `skipped` lists
    records that had to be left out, as in BatchLoader; None: no record may be left out.
    """

    batch_size: int
    eval_batch_size: int | None = None
    seed: int = 0
    num_workers: int = 0

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__init__()
        refuse_below(self, 1, "batch_size", "eval_batch_size")
        refuse_below(self, 0, "num_workers")
        self.splits: dict[SplitName, BatchDataset] = {}
        self.skipped: dict[str, str] | None = None

    @abstractmethod
    def read_split(self, name: SplitName) -> BatchDataset:
        """Read one split; raises UserError if it is not available."""

    def setup(self, stage: str | None = None) -> None:
        """Read the splits of a stage, "fit", "validate" or "test"; all of them if it is None."""
        for name in SPLITS_OF_STAGE.get(stage, SPLITS):
            if name not in self.splits:
                self.splits[name] = self.read_split(name)

    def train_dataloader(self) -> BatchLoader:
        """The shuffled training batches, or a fixed order for `overfit_batches`."""
        size, shard = len(self.splits["train"]), shard_of(self)
        if getattr(self.trainer, "overfit_batches", 0) > 0:
            return self._loader("train", OrderedIndices(size, self.batch_size, shard))
        return self._loader("train", ShuffledIndices(size, self.batch_size, self.seed, shard))

    def val_dataloader(self) -> BatchLoader:
        """The validation batches in their stored order."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> BatchLoader:
        """The test batches in their stored order."""
        return self._evaluation_loader("test")

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """The batch on the device; on the CPU it is already there."""
        if device.type == "cpu":
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _evaluation_loader(self, name: SplitName) -> BatchLoader:
        size, batch_size = len(self.splits[name]), self.eval_batch_size or self.batch_size
        return self._loader(name, OrderedIndices(size, batch_size, shard_of(self)))

    def _loader(self, name: SplitName, indices: EpochIndices) -> BatchLoader:
        return BatchLoader(
            self.splits[name], indices, seed=self.seed, num_workers=self.num_workers,
            pin_memory=on_gpu(self), skipped=self.skipped,
        )  # fmt: skip


def on_gpu(data: LightningDataModule) -> bool:
    """Whether the batches go to an NVIDIA GPU, as far as the trainer reports."""
    if data.trainer is None:
        return torch.cuda.is_available()
    return bool(data.trainer.strategy.root_device.type == "cuda")


def shard_of(data: LightningDataModule) -> Shard:
    """The part of each epoch that this process takes."""
    if data.trainer is not None:
        return Shard(data.trainer.global_rank, data.trainer.world_size)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return Shard(torch.distributed.get_rank(), torch.distributed.get_world_size())
    return Shard()


def refuse_below(settings: object, least: int, *names: str) -> None:
    """Raise UserError if one of the settings is smaller than `least`."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < least:
            raise UserError(f"task.{name} is {value}: set it to {least} or more.")


def check_fraction(name: str, value: float) -> None:
    """Raise UserError unless `value` can be the fraction of a set that is held out."""
    if not 0 <= value < 1:
        raise UserError(f"task.{name} is {value}: set it to a number in [0, 1).")
