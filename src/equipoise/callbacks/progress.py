"""The progress bar on a terminal, and one line an epoch everywhere."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomBarColumn
from rich.progress import TextColumn, TimeRemainingColumn
from rich.table import Column

from equipoise.callbacks.convergence_monitor import ConvergenceMonitor
from equipoise.callbacks.ending import sentence
from equipoise.callbacks.epoch_line import epoch_line, epoch_of, evaluations, find
from equipoise.callbacks.training_curve import TrainingCurve

BAR_WIDTH = 8


class Progress(RichProgressBar):
    """Print a line for each epoch, and below the lines a bar on a terminal.

    The bar fits 80 columns and shows loss, NFE (a sample's mean / the batch's) and residual of the
    latest batch, read only when it is refreshed. refresh_rate: batches between two refreshes. The
    numbers come from `TrainingCurve` and `ConvergenceMonitor`, which must stand before this
    callback in the list; what is missing is not shown. The bar goes when its stage ends.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.plain = False
        self.speaks = False
        self.epoch_started = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Decide between the bar and plain lines."""
        from rich import get_console

        super().setup(trainer, pl_module, stage)
        self.speaks = self.is_enabled and trainer.is_global_zero
        self.plain = self.is_enabled and not get_console().is_terminal
        if self.plain:
            self.disable()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the bar, and leave the decision to the next stage."""
        super().teardown(trainer, pl_module, stage)
        if self.plain:
            self.enable()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the first epoch."""
        super().on_train_start(trainer, pl_module)
        self.epoch_started = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Refresh the bar at every `refresh_rate`-th batch and at the last."""
        done = batch_idx + 1
        if self.is_enabled and (done % self.refresh_rate == 0 or done == self.total_train_batches):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch, above the bar where there is one."""
        super().on_train_epoch_end(trainer, pl_module)
        now = time.monotonic()
        if self.speaks:
            print(epoch_line(trainer, now - self.epoch_started), flush=True)
        self.epoch_started = now

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what has ended the training early."""
        super().on_train_end(trainer, pl_module)
        if self.speaks and (said := sentence(trainer)):
            print(said, flush=True)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands behind the bar; this waits for the device."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        curve, monitor = find(trainer, TrainingCurve), find(trainer, ConvergenceMonitor)
        if curve is not None and (loss := curve.current_loss()) is not None:
            shown["loss"] = f"{loss:.3f}"
        if monitor is not None and (current := monitor.current()) is not None:
            sample, batch, residual = current
            shown["nfe"] = evaluations(sample, batch)
            shown["residual"] = "-" if residual is None else f"{residual:.0e}"
        return shown

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """Return what stands in front of the numbers: stage, bar, batches, time that is left."""
        one_line = Column(no_wrap=True)
        return [
            TextColumn("{task.description}", table_column=one_line),
            CustomBarColumn(
                bar_width=BAR_WIDTH,
                complete_style=self.theme.progress_bar,
                finished_style=self.theme.progress_bar_finished,
                pulse_style=self.theme.progress_bar_pulse,
            ),
            TextColumn("{task.completed:.0f}/{task.total:.0f}", table_column=one_line),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        ]

    def _init_progress(self, trainer: Trainer) -> None:
        super()._init_progress(trainer)
        if self.progress is not None:
            self.progress.live.transient = True
        if self._metric_component is not None:  # cut in a narrow terminal, where it would wrap
            self._metric_component._table_column = Column(no_wrap=True, overflow="ellipsis")

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{epoch_of(self.trainer):{len(self.validation_description)}}"
