"""Ending a run early while keeping the schedule of the whole run."""

from __future__ import annotations

import signal
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from equipoise.callbacks.graceful_interrupt import GracefulInterrupt
from equipoise.callbacks.lightning_overhead import Observer, find_callback


class StopAfter(Observer):
    """Ends training after `steps` optimiser steps, as Ctrl-C would, with a checkpoint.

    Schedules, warm-ups and phases are fractions of the run, so a lower `trainer.max_steps` would
    change them. Here the steps are the first ones of the whole run, which `resume=auto` continues.
    Without `graceful_interrupt`, training is stopped by `trainer.should_stop`.
    """

    def __init__(self, steps: int = 100) -> None:
        if steps < 1:
            raise ValueError(f"steps must be 1 or more, got {steps}")
        self.steps = steps

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Request the end once the steps are done; `GracefulInterrupt` comes later and saves."""
        if trainer.global_step < self.steps:
            return
        saving = find_callback(trainer, GracefulInterrupt)
        if saving is None:
            trainer.should_stop = True
        else:
            saving.signalled = signal.SIGINT
