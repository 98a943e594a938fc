"""Whether the first step has begun: what is raised before it is about the settings."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from equipoise.callbacks.lightning_overhead import Observer


class TrainingBegun(Observer):
    """Notes that data, optimiser and loops could be set up."""

    def __init__(self) -> None:
        self.begun = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, what is raised comes from a step."""
        self.begun = True

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Likewise of an evaluation."""
        self.begun = True
