"""Small runs of every kind of task that are stopped at a step and resumed."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from equipoise.config.compose import compose
from equipoise.errors import RunInterrupted
from equipoise.running import run as training
from equipoise.running.api import _prepare, run
from equipoise.running.build import build_run

NETWORK = ("model.channels=[8,8]", "model.head_channels=[2,4]", "model.final_channels=16",
           "model.groups=4", "solver.max_steps=4", "model.dropout=0.2")  # fmt: skip
SEQUENCES = ("model.width=16", "model.inner_width=32", "model.heads=2", "solver.max_steps=4",
             "model.dropout=0.2")  # fmt: skip
TASKS: dict[str, tuple[str, ...]] = {
    "digits": (*NETWORK, "task.batch_size=300"),
    "image_folder": (  # a folder that the test makes in the present one
        *NETWORK, "task.path=own_pictures", "task.damaged=skip", "task.batch_size=7",
        "task.image_size=16", "task.num_workers=0",
    ),
    "digit_scenes": (
        *NETWORK, "task.train_scenes=40", "task.batch_size=8", "task.canvas=16",
        "trainer.limit_val_batches=2", "trainer.limit_test_batches=1",
    ),
    "digits_and_scenes": (
        *NETWORK, "task.train_scenes=40", "task.batch_size=8", "task.canvas=16",
        "trainer.limit_val_batches=2", "trainer.limit_test_batches=1",
    ),
    "python_docs": (
        *SEQUENCES, "task.batch_size=8", "trainer.limit_train_batches=5",
        "trainer.limit_val_batches=2", "trainer.limit_test_batches=1",
    ),
    "copy_memory": (
        *SEQUENCES, "task.length=5", "task.train_size=40", "task.val_size=8", "task.test_size=8",
        "task.batch_size=8",
    ),
    "number_words": (
        "model.width=16", "model.inner_width=32", "model.heads=2", "model.layers=1",
        "model.encoder_layers=1", "model.dropout=0.2", "task.train_size=100", "task.val_size=4",
        "task.test_size=4", "task.batch_size=20", "task.subwords=300",
    ),
    "trimodal": (
        "model.width=8", "model.heads=2", "model.layers=1", "model.relu_dropout=0.2",
        "task.train_size=40", "task.val_size=8", "task.test_size=8", "task.batch_size=8",
    ),
    "nmr_small": (
        "model.width=8", "model.heads=2", "model.layers=1", "model.inner=16", "model.head_width=4",
        "model.dropout=0.2", "task.batch_size=50", "task.val_fraction=0.05",
        "task.test_fraction=0.25", "trainer.limit_test_batches=1",
    ),
    "ssl_digits": (
        "model.encoder.size=tiny", "model.projector=[16,8]", "task.batch_size=200",
        "task.val_fraction=0.2", "task.bank_size=100", "trainer.limit_test_batches=1",
        "task.objective.probe_epochs=2",
    ),
    "hyperparameter": ("model.strengths=feature", "task.batch_size=50"),
    "range_query": (
        "task.users=2001", "task.domain=64", "task.repeats=2", "task.batch_size=200",
        "task.queries=20",
    ),
}  # fmt: skip
BATCHES = 5
"""Batches of an epoch of each task but the last two, of which an epoch or a round has 1 or 2."""


class SignalAt(Callback):
    """Sends SIGINT to this process at the start of a batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            os.kill(os.getpid(), signal.SIGINT)


def interrupted(directory: Path, batch: int, *overrides: str) -> None:
    """Run until the step of a batch (counted over all epochs) has been interrupted."""
    composition = compose(overrides)
    _prepare(composition, directory)
    built = build_run(composition, directory)
    built.trainer.callbacks.insert(0, SignalAt(batch))  # type: ignore[attr-defined]
    with pytest.raises(RunInterrupted):
        training.fit_and_test(built, None)


def resumed(directory: Path, *overrides: str, name: str = "last.ckpt") -> dict[str, Any]:
    """Resume a run in its own folder."""
    return run(f"ckpt_path={directory}/checkpoints/{name}", f"run_dir={directory}", *overrides)


def checkpoint(directory: Path, name: str = "last.ckpt") -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(directory / "checkpoints" / name, weights_only=True)
    return loaded


def curve(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def differences(found: Any, expected: Any, name: str = "") -> list[str]:
    """The places where two nested states are not the same bits."""
    if isinstance(expected, torch.Tensor):
        same = isinstance(found, torch.Tensor) and torch.equal(found, expected)
        return [] if same else [name]
    if isinstance(expected, dict) and isinstance(found, dict) and found.keys() == expected.keys():
        pairs = [(key, found[key], expected[key]) for key in expected]
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        pairs = [(i, *pair) for i, pair in enumerate(zip(found, expected, strict=True))]
    else:
        return [] if found == expected else [name]
    return [at for key, one, two in pairs for at in differences(one, two, f"{name}/{key}")]
