"""The checkpoint with the best validation metric, and of several equally good ones the latest."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from equipoise.callbacks.run_checkpoint import RunCheckpoint


class BestCheckpoint(RunCheckpoint):
    """A RunCheckpoint with save_top_k=1, whose file an equally good epoch replaces too.

    A small validation split gives many epochs the same accuracy, and the first of them, which
    Lightning would keep, has been trained least. Where an epoch was cut short before its
    validation, the metric of the one before says nothing of the present weights and is passed over.
    """

    validated_step: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note of which weights the metric is, then do as always."""
        if not trainer.sanity_checking:
            self.validated_step = trainer.global_step
        super().on_validation_end(trainer, pl_module)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether the monitored value is the best so far, or equals it."""
        if super().check_monitor_top_k(trainer, current):
            return True
        return current is not None and bool(current == self.best_model_score)

    def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Any]) -> None:
        of_validation = str(self.monitor).startswith("val/") and trainer.enable_validation
        if not of_validation or self.validated_step == trainer.global_step:
            super()._save_topk_checkpoint(trainer, monitor_candidates)
