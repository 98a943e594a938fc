"""What all data modules of token sequences share: the host reads where streams begin."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from lightning.pytorch import LightningDataModule

from equipoise.data.indices import Shard


class SequenceDataModule(LightningDataModule):
    """Batches {"tokens", "targets", "index", "start"}, of which `start` stays on the host."""

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move all but `start`: whoever carries a memory asks it without waiting for the device."""
        moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return {**moved, "start": batch["start"]}

    def shard(self) -> Shard:
        """Return which part of the streams or samples this process takes."""
        if self.trainer is not None:
            return Shard(self.trainer.global_rank, self.trainer.world_size)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return Shard(torch.distributed.get_rank(), torch.distributed.get_world_size())
        return Shard()
