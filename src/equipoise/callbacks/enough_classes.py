"""A network with fewer outputs than the data has classes is refused before the first step."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer

from equipoise.callbacks.observers import Observer
from equipoise.errors import UserError


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
