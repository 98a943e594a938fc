"""A checkpoint every few minutes, for epochs that take hours."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


class TimedCheckpoint(Checkpoint):
    """Save `last.ckpt` after the first whole step once `minutes` have passed since the last save.

    A run resumes from it with the next batch, as from every other checkpoint. A whole step includes
    all batches accumulated for it, and is saved after the other callbacks have seen it, because
    this is a `Checkpoint` and Lightning runs those last. With several processes, the first one's
    clock decides. A task whose `resumes_within_epoch` is False is saved only after its epochs.

    minutes: minutes of training between two saves, including validations.
    """

    def __init__(self, dirpath: str | Path, minutes: float = 10.0) -> None:
        self.last_checkpoint = Path(dirpath) / "last.ckpt"
        self.minutes = minutes
        self.saved_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.saved_at = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save if it is time, unless the optimiser step still waits for further batches."""
        if trainer.fit_loop._should_accumulate():
            return
        if getattr(pl_module, "resumes_within_epoch", True) and self._is_time(trainer):
            trainer.save_checkpoint(self.last_checkpoint, weights_only=False)
            self.saved_at = time.monotonic()

    def _is_time(self, trainer: Trainer) -> bool:
        due = time.monotonic() - self.saved_at >= 60 * self.minutes
        if trainer.world_size == 1:
            return due
        return trainer.strategy.reduce_boolean_decision(due and trainer.is_global_zero, all=False)
