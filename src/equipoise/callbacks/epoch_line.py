"""An epoch in one line of a terminal: how far the run is, and what it has reached."""

from __future__ import annotations

import math
from typing import Any, TypeVar

from lightning.pytorch import Callback, Trainer

from equipoise.callbacks.convergence_monitor import ConvergenceMonitor
from equipoise.callbacks.observers import every_callback
from equipoise.callbacks.training_curve import TrainingCurve

WIDTH = 79
"""Columns of a line: a terminal of 80 wraps a full one."""

Kind = TypeVar("Kind", bound=Callback)


def find(trainer: Trainer, kind: type[Kind]) -> Kind | None:
    """Return the trainer's first callback of a class."""
    return next((found for found in every_callback(trainer) if isinstance(found, kind)), None)


def epoch_line(trainer: Trainer, seconds: float) -> str:
    """Return loss, validation metrics, solves and seconds of the epoch that ends.

    The monitored metric comes first; of the others those are left out that do not fit.
    """
    before = [epoch_of(trainer), *_loss(trainer)]
    after = [*(_solves(trainer) or _learning_rate(trainer)), f"{seconds:.0f} s"]
    shown: list[str] = []
    for metric in _metrics(trainer):
        if not shown or len("  ".join([*before, *shown, metric, *after])) <= WIDTH:
            shown.append(metric)
    return "  ".join([*before, *shown, *after])


def epoch_of(trainer: Trainer) -> str:
    """Return "epoch 3/15", counted from 1; a run that has no end, or ends by time, shows no 15."""
    planned = _planned_epochs(trainer)
    return f"epoch {trainer.current_epoch + 1}{'' if planned is None else f'/{planned}'}"


def _planned_epochs(trainer: Trainer) -> int | None:
    """The epochs that `max_epochs` and `max_steps` leave, the last of them perhaps in part."""
    limits: list[int] = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs)
    batches = trainer.num_training_batches
    if trainer.max_steps > 0 and math.isfinite(batches) and batches:
        steps = math.ceil(batches / trainer.accumulate_grad_batches)
        limits.append(math.ceil(trainer.max_steps / steps))
    return max(min(limits), trainer.current_epoch + 1) if limits else None


def _loss(trainer: Trainer) -> list[str]:
    curve = find(trainer, TrainingCurve)
    return [f"loss {curve.latest['loss']:.3f}"] if curve and "loss" in curve.latest else []


def _metrics(trainer: Trainer) -> list[str]:
    """The latest validation's, the monitored one first, and what a survey's round tells."""
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    monitored = [getattr(callback, "monitor", None) for callback in trainer.checkpoint_callbacks]
    ordered = sorted(values.items(), key=lambda metric: metric[0] not in monitored)
    validation = [
        f"{name.replace('/', ' ')} {number(value)}"
        for name, value in ordered
        if name.startswith("val/") and name != "val/loss" and math.isfinite(value)
    ]
    rounds = [
        f"{name.removeprefix('round/')} {value:.0f}"
        for name, value in values.items()
        if name.startswith("round/")
    ]
    return [*validation, *rounds]


def number(value: float) -> str:
    """Three decimals, or as many digits where that says nothing of a small or a large number."""
    return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.3g}"


def _solves(trainer: Trainer) -> list[str]:
    """Evaluations a sample and a batch, and how many samples converged."""
    monitor = find(trainer, ConvergenceMonitor)
    solver: dict[str, Any] | None = None if monitor is None else monitor.summary("train")
    if solver is None:
        return []
    parts = [f"nfe {evaluations(solver['nfe_per_sample'], solver['nfe_mean'])}"]
    if solver["converged_fraction"] is not None:
        parts.append(f"converged {100 * solver['converged_fraction']:.0f} %")
    return parts


def evaluations(sample: float | None, batch: float) -> str:
    """Return "17.3/30": what a sample needed in the mean, and what was spent on the batch."""
    spent = f"{batch:.1f}".removesuffix(".0")
    return spent if sample is None else f"{sample:.1f}/{spent}"


def _learning_rate(trainer: Trainer) -> list[str]:
    if not (trainer.optimizers and trainer.optimizers[0].param_groups):
        return []
    return [f"lr {trainer.optimizers[0].param_groups[0]['lr']:.1e}"]
