"""The checkpoint with the best validation metric, and of several equally good ones the latest."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint with save_top_k=1, whose file an equally good epoch replaces too.

    A small validation split gives many epochs the same accuracy, and the first of them, which
    Lightning would keep, has been trained least.
    """

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether the monitored value is the best so far, or equals it."""
        if super().check_monitor_top_k(trainer, current):
            return True
        return current is not None and bool(current == self.best_model_score)
