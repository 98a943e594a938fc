"""The progress bar on a terminal, one line per epoch everywhere, and why training has ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar, Timer
from lightning.pytorch.callbacks.progress.rich_progress import CustomBarColumn
from rich.progress import Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from equipoise.callbacks.convergence_monitor import ConvergenceMonitor
from equipoise.callbacks.lightning_overhead import every_callback, find_callback
from equipoise.callbacks.resumption import position
from equipoise.callbacks.training_curve import TrainingCurve

WIDTH = 79
"""Columns of a line: a terminal of 80 columns wraps a line that fills it."""


BAR_WIDTH = 8


@runtime_checkable
class Noting(Protocol):
    """A task that has more to show of an epoch than its validation metrics."""

    def epoch_notes(self) -> Sequence[str]:
        """Each note in a few words, such as "reports 5000"."""
        ...


@runtime_checkable
class Ending(Protocol):
    """A callback that ends a run for a reason of its own."""

    ended_by: str | None
    """The reason in a word, None if it has not ended the run."""

    @property
    def sentence(self) -> str:
        """The reason as a clause."""
        ...


def epoch_line(trainer: Trainer, seconds: float, left: float | None = None) -> str:
    """Loss, validation metrics, solves and seconds of the epoch that ends.

    The monitored metric comes first; other metrics that do not fit are left out. left: the seconds
    until the end of training, None if unknown.
    """
    before = [epoch_of(trainer), *_loss(trainer)]
    after = [*(_solves(trainer) or _learning_rate(trainer)), f"{seconds:.0f} s"]
    after += [f"{duration(left)} left"] if left is not None and left >= 1 else []
    shown: list[str] = []
    for metric in _metrics(trainer):
        if not shown or len("  ".join([*before, *shown, metric, *after])) <= WIDTH:
            shown.append(metric)
    return "  ".join([*before, *shown, *after])


def epoch_of(trainer: Trainer) -> str:
    """Text such as "epoch 3/15", counted from 1; without "/15" if the end is not known."""
    planned = _planned_epochs(trainer)
    return f"epoch {trainer.current_epoch + 1}{'' if planned is None else f'/{planned}'}"


def _planned_epochs(trainer: Trainer) -> int | None:
    """The number of epochs that `max_epochs` and `max_steps` allow; the last may be partial."""
    limits: list[int] = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs)
    batches = trainer.num_training_batches
    if trainer.max_steps > 0 and math.isfinite(batches) and batches:
        steps = math.ceil(batches / trainer.accumulate_grad_batches)
        limits.append(math.ceil(trainer.max_steps / steps))
    return max(min(limits), trainer.current_epoch + 1) if limits else None


def part_done(trainer: Trainer) -> float | None:
    """The fraction of training that is done; None if neither epochs nor steps limit it."""
    parts: list[float] = []
    epoch, batch = position(trainer)
    batches = trainer.num_training_batches
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and 0 < batches < math.inf:
        parts.append((epoch + batch / batches) / trainer.max_epochs)
    if trainer.max_steps > 0:
        parts.append(trainer.global_step / trainer.max_steps)
    return min(max(parts), 1.0) if parts else None


def time_left(trainer: Trainer, begun: float, seconds: float) -> float | None:
    """Seconds until the end of training at the speed so far; None if unknown.

    begun: the fraction that was done when this process began; seconds: the time since then. Early
    stopping may end training sooner.
    """
    timers = (c.time_remaining() for c in every_callback(trainer) if isinstance(c, Timer))
    lefts = [left for left in timers if left is not None]
    done = part_done(trainer)
    if done is not None and done > begun:
        lefts.append(seconds * (1 - done) / (done - begun))
    return min(lefts) if lefts else None


def duration(seconds: float) -> str:
    """Text such as "40 s", "12 min", "3 h 05 min" or "2 d 4 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def _loss(trainer: Trainer) -> list[str]:
    curve = find_callback(trainer, TrainingCurve)
    return [f"loss {curve.latest['loss']:.3f}"] if curve and "loss" in curve.latest else []


def _metrics(trainer: Trainer) -> list[str]:
    """The latest validation's metrics, the monitored one first, and the task's own notes."""
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    monitored = [getattr(callback, "monitor", None) for callback in trainer.checkpoint_callbacks]
    ordered = sorted(values.items(), key=lambda metric: metric[0] not in monitored)
    validation = [
        f"{name.replace('/', ' ')} {number(value)}"
        for name, value in ordered
        if name.startswith("val/") and name != "val/loss" and math.isfinite(value)
    ]
    task = trainer.lightning_module
    return [*validation, *(task.epoch_notes() if isinstance(task, Noting) else ())]


def number(value: float) -> str:
    """Three decimals, or three significant digits below 0.01 and from 1000 on."""
    return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.3g}"


def _solves(trainer: Trainer) -> list[str]:
    """Evaluations per sample and per batch, and how many samples converged."""
    monitor = find_callback(trainer, ConvergenceMonitor)
    solver: dict[str, Any] | None = None if monitor is None else monitor.solver_stats("train")
    if solver is None:
        return []
    parts = [f"nfe {evaluations(solver['nfe_per_sample'], solver['nfe_mean'])}"]
    if solver["converged_fraction"] is not None:
        parts.append(f"converged {100 * solver['converged_fraction']:.0f} %")
    return parts


def evaluations(sample: float | None, batch: float) -> str:
    """Text such as "17.3/30": the mean needed per sample, and the evaluations of the batch."""
    spent = f"{batch:.1f}".removesuffix(".0")
    return spent if sample is None else f"{sample:.1f}/{spent}"


def _learning_rate(trainer: Trainer) -> list[str]:
    if not (trainer.optimizers and trainer.optimizers[0].param_groups):
        return []
    return [f"lr {trainer.optimizers[0].param_groups[0]['lr']:.1e}"]


def early_end(trainer: Trainer) -> str | None:
    """What ended a run early: "max_time", "early_stopping", or the `ended_by` of a callback.

    None if the run went as far as planned.
    """
    if not trainer.should_stop:
        return None
    if (ending := _ending(trainer)) is not None:
        return ending.ended_by
    timers = (c for c in every_callback(trainer) if isinstance(c, Timer))
    if any(left is not None and left <= 0 for left in (t.time_remaining() for t in timers)):
        return "max_time"
    return None if find_callback(trainer, EarlyStopping) is None else "early_stopping"


def _ending(trainer: Trainer) -> Ending | None:
    """The callback that ended the run, if one did."""
    callbacks = (c for c in every_callback(trainer) if isinstance(c, Ending))
    return next((callback for callback in callbacks if callback.ended_by), None)


def ending_sentence(trainer: Trainer) -> str | None:
    """The sentence to print about an early end; None if there was none."""
    where = f"after step {trainer.global_step}, in epoch {trainer.current_epoch}"
    reason = early_end(trainer)
    if (ending := _ending(trainer)) is not None and reason == ending.ended_by:
        return f"stopped {where}: {ending.sentence}"
    if reason == "max_time":
        return f"stopped {where}: trainer.max_time was reached"
    if reason == "early_stopping":
        stopping = find_callback(trainer, EarlyStopping)
        assert stopping is not None
        return (
            f"stopped early {where}: {stopping.monitor} has not improved "
            f"for {stopping.wait_count} validations"
        )
    return None


class TimeLeft(TimeRemainingColumn):
    """The time left of the whole training at the last refresh, or of the bar if unknown."""

    def __init__(self, of_run: Callable[[], float | None]) -> None:
        super().__init__(compact=True, elapsed_when_finished=True)
        self.of_run = of_run

    def render(self, task: Task) -> Text:
        """Text such as "03:25" or "12:03:25"."""
        left = self.of_run()
        if left is None:
            return super().render(task)
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        text = f"{minutes:02d}:{seconds:02d}"
        return Text(f"{hours}:{text}" if hours else text, style="progress.remaining")


class Progress(RichProgressBar):
    """Print a line for each epoch and, on a terminal, a bar below the lines.

    The bar fits 80 columns and shows loss, NFE (per sample / per batch) and residual of the
    latest batch, read only when it is refreshed. refresh_rate: batches between two refreshes. The
    numbers come from `TrainingCurve` and `ConvergenceMonitor`, which must precede this callback in
    the list; missing numbers are not shown. The bar disappears when its stage ends.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.plain = False
        self.speaks = False
        self.epoch_started = 0.0
        self.started = 0.0
        self.begun = 0.0
        self.left: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Decide between the bar and plain lines."""
        from rich import get_console

        super().setup(trainer, pl_module, stage)
        self.speaks = self.is_enabled and trainer.is_global_zero
        self.plain = self.is_enabled and not get_console().is_terminal
        if self.plain:
            self.disable()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the bar; the next stage decides again whether to show one."""
        super().teardown(trainer, pl_module, stage)
        if self.plain:
            self.enable()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks of the run and of its first epoch."""
        super().on_train_start(trainer, pl_module)
        self.started = self.epoch_started = time.monotonic()
        self.begun = part_done(trainer) or 0.0

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
        """Print the line of the epoch, above the bar if there is one."""
        super().on_train_epoch_end(trainer, pl_module)
        now = time.monotonic()
        if self.speaks:
            left = time_left(trainer, self.begun, now - self.started)
            print(epoch_line(trainer, now - self.epoch_started, left), flush=True)
        self.epoch_started = now

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what ended training early, if anything did."""
        super().on_train_end(trainer, pl_module)
        if self.speaks and (sentence := ending_sentence(trainer)):
            print(sentence, flush=True)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The numbers after the bar; reading them waits for the device."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        curve = find_callback(trainer, TrainingCurve)
        monitor = find_callback(trainer, ConvergenceMonitor)
        if curve is not None and (loss := curve.current_loss()) is not None:
            shown["loss"] = f"{loss:.3f}"
        if monitor is not None and (current := monitor.current()) is not None:
            sample, batch, residual = current
            shown["nfe"] = evaluations(sample, batch)
            shown["residual"] = "-" if residual is None else f"{residual:.0e}"
        now = time.monotonic()
        self.left = time_left(trainer, self.begun, now - self.started) if trainer.training else None
        return shown

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """The columns before the numbers: stage, bar, batches, time left of the run."""
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
            TimeLeft(lambda: self.left),
        ]

    def _init_progress(self, trainer: Trainer) -> None:
        super()._init_progress(trainer)
        if self.progress is not None:
            self.progress.live.transient = True
        if self._metric_component is not None:  # cut in a narrow terminal, where it would wrap
            self._metric_component._table_column = Column(no_wrap=True, overflow="ellipsis")

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{epoch_of(self.trainer):{len(self.validation_description)}}"
