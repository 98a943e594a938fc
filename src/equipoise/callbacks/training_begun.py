"""Whether the first step has begun: what is raised before it is about the settings."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from equipoise.callbacks.observers import Observer


class TrainingBegun(Observer):
    """Notes that data, optimiser and loops could be set up, and that a batch was trained on."""

    def __init__(self) -> None:
        self.begun = False
        self.stepped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, what is raised comes from a step."""
        self.begun = True

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """From here on there is something to lose."""
        self.stepped = True
