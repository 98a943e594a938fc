"""The progress bar on a terminal, and one plain line an epoch everywhere else."""

from __future__ import annotations

import math
import time
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from equipoise.callbacks.convergence_monitor import ConvergenceMonitor
from equipoise.callbacks.observers import every_callback
from equipoise.callbacks.training_curve import TrainingCurve


class Progress(RichProgressBar):
    """Show loss, NFE and residual of the latest batch, read only when the bar is refreshed.

    refresh_rate: batches between two refreshes. The numbers come from `TrainingCurve` and
    `ConvergenceMonitor`, which must stand before this callback in the list; what is missing is not
    shown. Where the console is not a terminal no bar is drawn and each epoch prints one line.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.plain = False
        self.epoch_started = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Decide between the bar and plain lines."""
        from rich import get_console

        super().setup(trainer, pl_module, stage)
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
        """Print the line of the epoch where there is no bar."""
        super().on_train_epoch_end(trainer, pl_module)
        now = time.monotonic()
        if self.plain and trainer.is_global_zero:
            print(_line(trainer, now - self.epoch_started), flush=True)
        self.epoch_started = now

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands behind the bar; this waits for the device."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        curve, monitor = find(trainer, TrainingCurve), find(trainer, ConvergenceMonitor)
        if curve is not None and (loss := curve.current_loss()) is not None:
            shown["loss"] = f"{loss:.4f}"
        if monitor is not None and (current := monitor.current()) is not None:
            evaluations, residual = current
            shown["nfe"] = f"{evaluations:.1f}"
            shown["residual"] = "-" if residual is None else f"{residual:.1e}"
        return shown


Kind = TypeVar("Kind", bound=Callback)


def find(trainer: Trainer, kind: type[Kind]) -> Kind | None:
    """Return the trainer's first callback of a class."""
    return next((found for found in every_callback(trainer) if isinstance(found, kind)), None)


def _line(trainer: Trainer, seconds: float) -> str:
    parts = [f"epoch {trainer.current_epoch + 1}{_of_epochs(trainer)}"]
    curve, monitor = find(trainer, TrainingCurve), find(trainer, ConvergenceMonitor)
    if curve is not None and "loss" in curve.latest:
        parts.append(f"loss {curve.latest['loss']:.3f}")
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    parts += [
        f"{name.replace('/', ' ')} {value:.3f}"
        for name, value in metrics.items()
        if name.startswith("val/") and name != "val/loss" and math.isfinite(value)
    ]
    rounds = {n.removeprefix("round/"): v for n, v in metrics.items() if n.startswith("round/")}
    parts += [f"{name} {value:.0f}" for name, value in rounds.items()]
    solver = None if monitor is None else monitor.summary("train")
    if solver is not None:
        parts.append(f"nfe {solver['nfe_mean']:.1f}")
        if solver["residual_median"] is not None:
            parts.append(f"residual {solver['residual_median']:.1e}")
    if trainer.optimizers and trainer.optimizers[0].param_groups:
        parts.append(f"lr {trainer.optimizers[0].param_groups[0]['lr']:.1e}")
    return "  ".join([*parts, f"{seconds:.0f} s"])


def _of_epochs(trainer: Trainer) -> str:
    epochs = trainer.max_epochs
    return f"/{epochs}" if epochs is not None and epochs > 0 else ""
