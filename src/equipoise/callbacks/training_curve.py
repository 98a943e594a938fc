"""Training loss, metrics and learning rate as columns of the curve, without a synchronisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, distributed

from equipoise.callbacks.curve_rows import CurveSource, MeanColumns, Row
from equipoise.callbacks.statistics import FiniteMean


class TrainingCurve(MeanColumns):
    """Write the means of the scalars that `training_step` returns as `train/<name>` columns.

    `latest` holds the means of the last whole epoch (or of the part of it that a stopped run has
    reached). With several processes, the means are over all of them, exchanged when a row or a
    checkpoint is due; if an exception ends a run, each process has only its own.
    """

    prefix = "train"

    def __init__(self) -> None:
        super().__init__()
        self.last_outputs: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run."""
        self.forget()
        super().on_train_start(trainer, pl_module)

    def row(self, trainer: Trainer) -> Row:
        """The means since the last row, over all processes."""
        self._share()
        return super().row(trainer)

    def summed_up(self) -> dict[str, Any]:
        """The sums since the last row and of the epoch, and the latest means."""
        self._share()
        return {**super().summed_up(), "row_step": self.row_step}

    def resume_from(self, state: dict[str, Any]) -> None:
        """Continue with the sums of a checkpoint."""
        super().resume_from(state)
        self.row_step = state["row_step"]

    def observe(self, trainer: Trainer, outputs: Any) -> None:
        """Add every scalar of `outputs` to its mean."""
        self.last_outputs = outputs
        for name, value in _scalars(outputs).items():
            # Lightning hands back the loss divided by the number of accumulated batches.
            parts = trainer.accumulate_grad_batches if name == "loss" else 1
            mean = self.since_row.get(name)
            if mean is None:
                mean = self.since_row[name] = FiniteMean()
            mean.add(value if parts == 1 else value * parts)

    def summary(self) -> dict[str, Any]:
        """The means of the last epoch for metrics.json."""
        return {"train": dict(self.latest)}

    def _share(self) -> None:
        """Replace the sums by their means over all processes; a second call changes nothing."""
        processes = 1 if self.alone or not self.since_row else number_of_processes()
        if processes == 1:
            return
        names = sorted(self.since_row)
        sums = torch.stack([self.since_row[name].parts() for name in names])
        distributed.all_reduce(sums)
        for name, parts in zip(names, sums / processes, strict=True):
            self.since_row[name].take(parts)

    def current_loss(self) -> float | None:
        """The loss of the latest batch; this costs one host-device sync."""
        loss = _scalars(self.last_outputs).get("loss")
        return None if loss is None else float(loss)


def number_of_processes() -> int:
    """How many processes share the run."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


class LearningRate(CurveSource):
    """Write the rate of each parameter group as `lr-<optimizer>` into the rows of the curve.

    Lightning's LearningRateMonitor writes rows of its own, under another step number.
    """

    def __init__(self) -> None:
        self.rates: Row = {}

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Record the rates that the coming step uses, before the schedule changes them."""
        for optimizer in trainer.optimizers:
            name = f"lr-{type(optimizer).__name__}"
            groups = optimizer.param_groups
            for number, group in enumerate(groups, start=1):
                self.rates[name if len(groups) == 1 else f"{name}/{number}"] = group["lr"]

    def observe(self, trainer: Trainer, outputs: Any) -> None:
        """Do nothing: the rates were recorded when the batch started."""

    def row(self, trainer: Trainer) -> Row:
        """The rates of the latest step; several groups of one optimiser are numbered."""
        rates: Row = {name: float(rate) for name, rate in self.rates.items()}
        self.rates = {}
        return rates

    def summed_up(self) -> dict[str, Any]:
        """The rates of a step whose row is not written yet."""
        return dict(self.rates)

    def resume_from(self, state: dict[str, Any]) -> None:
        """Continue with the rates of a checkpoint."""
        self.rates = state

    def close_epoch(self) -> None:
        """Do nothing: an epoch has no statistics of its rates."""


def _scalars(outputs: Any) -> dict[str, Tensor | float]:
    if isinstance(outputs, Tensor):
        outputs = {"loss": outputs}
    if not isinstance(outputs, Mapping):
        return {}
    return {name: value for name, value in outputs.items() if _is_scalar(value)}


def _is_scalar(value: Any) -> bool:
    return value.ndim == 0 if isinstance(value, Tensor) else isinstance(value, int | float)
