"""Rows of the training curve: several callbacks contribute columns, one row is written.

Loggers append a row for every call, even for a step already logged, and `self.log` costs about
0.3 ms per key and step. So the columns of one step are gathered first, read from the device
in one transfer, and handed to `logger.log_metrics` once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from torch import Tensor

from equipoise.callbacks.lightning_overhead import Observer, every_callback
from equipoise.callbacks.resumption import position
from equipoise.callbacks.statistics import FiniteMean

KEY = "curve"

Row = dict[str, Tensor | float | str]
"""Column name to value; tensors hold one element and are still on their device."""


class CurveSource(Observer, ABC):
    """A callback that contributes columns to the rows of the training curve.

    A row is written every `trainer.log_every_n_steps` optimiser steps, at the end of each epoch
    and when training stops early, by the last source in the trainer's list. A row due less than
    half an interval after the previous one, or before the end of the epoch, is left out, so that no
    row is the mean of a single leftover batch.
    """

    row_step: int = 0
    alone: bool = False  # True while an exception ends this process: the others may not answer
    loaded: dict[str, Any] | None = None

    @abstractmethod
    def observe(self, trainer: Trainer, outputs: Any) -> None:
        """Record one training batch without waiting for the device."""

    @abstractmethod
    def row(self, trainer: Trainer) -> Row:
        """Return the columns observed since the last row, and clear them."""

    @abstractmethod
    def close_epoch(self) -> None:
        """Keep the statistics of the training epoch that has ended and start the next."""

    def summed_up(self) -> dict[str, Any]:
        """The sums so far for the next row and for the epoch, to be saved in a checkpoint."""
        return {}

    def resume_from(self, state: dict[str, Any]) -> None:
        """Continue from the `summed_up` that a checkpoint holds."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting at this run's first step, from the sums of its checkpoint, if any."""
        self.row_step, self.alone = trainer.global_step, False
        if self.loaded:
            self.resume_from(self.loaded)
        self.loaded = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Observe the batch; if a row is due, the last source writes it."""
        self.observe(trainer, outputs)
        if self._due(trainer, batch_idx) and curve_sources(trainer)[-1] is self:
            write_row(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rest of the epoch as a row, then close the epoch."""
        write_row(trainer)
        self.close_epoch()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Write and close what the run had observed when it was stopped."""
        if trainer.training:
            for source in curve_sources(trainer):
                source.alone = True
            write_row(trainer)
            self.close_epoch()

    def _due(self, trainer: Trainer, batch_idx: int) -> bool:
        interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        step = trainer.global_step
        if interval <= 0 or step % interval or step == self.row_step:
            return False
        return 2 * min(step - self.row_step, _steps_left(trainer, batch_idx)) >= interval


class MeanColumns(CurveSource):
    """A source whose columns `<prefix>/<name>` are means since the last row.

    `latest` holds the means of the last epoch that had any values.
    """

    prefix: str

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start without any values."""
        self.since_row: dict[str, FiniteMean] = {}
        self.epoch: dict[str, FiniteMean] = {}
        self.latest: dict[str, float] = {}

    def row(self, trainer: Trainer) -> Row:
        """The means since the last row."""
        row: Row = {f"{self.prefix}/{name}": mean.mean() for name, mean in self.since_row.items()}
        for name, mean in self.since_row.items():
            self.epoch.setdefault(name, FiniteMean()).absorb(mean)
        self.since_row = {}
        return row

    def close_epoch(self) -> None:
        """Store the epoch's means in `latest`, which stays as it is if there were no values."""
        if self.epoch:
            self.latest = {name: mean.mean().item() for name, mean in self.epoch.items()}
        self.epoch = {}

    def summed_up(self) -> dict[str, Any]:
        """The sums since the last row and of the epoch, and the latest means."""
        return {
            "since_row": {name: mean.state_dict() for name, mean in self.since_row.items()},
            "epoch": {name: mean.state_dict() for name, mean in self.epoch.items()},
            "latest": dict(self.latest),
        }

    def resume_from(self, state: dict[str, Any]) -> None:
        """Continue from those sums and means."""
        for kept, name in ((self.since_row, "since_row"), (self.epoch, "epoch")):
            for column, sums in state.get(name, {}).items():
                kept.setdefault(column, FiniteMean()).load_state_dict(sums)
        self.latest = dict(state.get("latest", {}))


def _steps_left(trainer: Trainer, batch_idx: int) -> float:
    """The optimiser steps left in the epoch, or in the run if that ends first.

    At the last step: infinity, since no short row can follow.
    """
    left = (trainer.num_training_batches - batch_idx - 1) / trainer.accumulate_grad_batches
    if trainer.max_steps > 0:
        left = min(left, trainer.max_steps - trainer.global_step)
    return left or math.inf


def curve_sources(trainer: Trainer) -> list[CurveSource]:
    """The trainer's callbacks that contribute to the curve, in order."""
    return [callback for callback in every_callback(trainer) if isinstance(callback, CurveSource)]


def write_row(trainer: Trainer) -> None:
    """Write one row of everything observed since the last one, if anything was observed."""
    row: Row = {}
    for source in curve_sources(trainer):
        row.update(source.row(trainer))
        source.row_step = trainer.global_step
    if row and trainer.loggers:
        _log(trainer, {"epoch": trainer.current_epoch, **_read(row)})


def _read(row: Row) -> dict[str, float | str]:
    """Replace every tensor by its number, in one transfer from each device."""
    tensors = {name: value for name, value in row.items() if isinstance(value, Tensor)}
    values: dict[str, float] = {}
    for device in dict.fromkeys(value.device for value in tensors.values()):
        there = {name: value for name, value in tensors.items() if value.device == device}
        numbers = torch.stack([value.float().reshape(()) for value in there.values()]).tolist()
        values |= dict(zip(there, numbers, strict=True))
    return {k: values[k] if isinstance(value, Tensor) else value for k, value in row.items()}


def _log(trainer: Trainer, row: dict[str, float | str]) -> None:
    numbers: dict[str, Any] = {k: v for k, v in row.items() if not isinstance(v, str)}
    everything: dict[str, Any] = dict(row)
    for logger in trainer.loggers:
        # Text has no place in a TensorBoard scalar, and other loggers may refuse it too.
        takes_text = isinstance(logger, CSVLogger | WandbLogger)
        logger.log_metrics(everything if takes_text else numbers, step=trainer.global_step)
        logger.save()


class CurveState(Observer):
    """Saves the running sums of the curve's sources, and how many rows metrics.csv has.

    With them, a resumed run writes the rows that an uninterrupted run would have written, and can
    identify the rows that the broken run wrote after the checkpoint. If an epoch is cut short, the
    state before its last row is saved, since a resumed run continues that epoch. This callback must
    precede the sources in the list.
    """

    def __init__(self) -> None:
        self.before_the_end: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run."""
        self.before_the_end = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """If the epoch was cut short, keep the state before its last row is written."""
        if position(trainer).batch:
            self.before_the_end = _state(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the state."""
        checkpoint[KEY] = self.before_the_end or _state(trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Hand each source its state, for when training starts."""
        sources = checkpoint.get(KEY, {}).get("sources", {})
        for source in curve_sources(trainer):
            source.loaded = sources.get(source.state_key)


def written_rows(file: Path) -> int:
    """The number of rows of a metrics.csv, without its header; 0 without a file."""
    if not file.is_file():
        return 0
    with file.open("rb") as lines:
        return max(sum(1 for _ in lines) - 1, 0)


def _state(trainer: Trainer) -> dict[str, Any]:
    sums = {source.state_key: source.summed_up() for source in curve_sources(trainer)}
    files = [Path(log.log_dir) for log in trainer.loggers if isinstance(log, CSVLogger)]
    rows = written_rows(files[0] / "metrics.csv") if files else 0
    return {
        "rows": rows,
        "last": max((source.row_step for source in curve_sources(trainer)), default=0),
        "marks": _marks(trainer.loggers),
        "sources": {key: state for key, state in sums.items() if state},
    }


def _marks(loggers: Sequence[Logger]) -> dict[str, Any]:
    """What loggers need to resume from a checkpoint, by class name."""
    # Look at the class: an instance may have every attribute, as Lightning's DummyLogger does.
    marking = [logger for logger in loggers if hasattr(type(logger), "mark")]
    marks = {type(logger).__name__: getattr(logger, "mark", None) for logger in marking}
    return {name: mark for name, mark in marks.items() if mark is not None}
