"""What all data modules of token sequences share: the host reads where streams begin."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule


class SequenceDataModule(LightningDataModule):
    """Batches {"tokens", "targets", "index", "start"}, of which `start` stays on the host."""

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move all but `start`: whoever carries a memory asks it without waiting for the device."""
        moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return {**moved, "start": batch["start"]}
