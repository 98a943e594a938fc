"""What is checked before the first step, and whether that step has begun."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from equipoise.callbacks.lightning_overhead import Observer
from equipoise.errors import UserError


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


class EnoughClasses(Observer):
    """Compares the outputs with the names of the classes once the data has been read.

    key: the setting that says how many outputs there are; outputs: what it says.
    """

    def __init__(self, key: str, outputs: int) -> None:
        self.key = key
        self.outputs = outputs

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise UserError where a label would have no output."""
        names = getattr(trainer.datamodule, "classes", [])  # type: ignore[attr-defined]
        if len(names) > self.outputs:
            raise UserError(
                f"{self.key}={self.outputs} is too few: the data has {len(names)} classes, from "
                f"{names[0]} to {names[-1]}"
            )

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise before a test."""
        self.on_fit_start(trainer, pl_module)
