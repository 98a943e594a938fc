"""Samples of a split of the data, by whatever the task predicts of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from equipoise.commands.predict.job import Job
from equipoise.commands.predict.splits import split_batches
from equipoise.commands.predict.table import Column, whole_table
from equipoise.errors import UserError
from equipoise.running.loaded import Loaded, loaded

SETTINGS = frozenset({"split"})


def predict(job: Job) -> str:
    """Write what the task predicts of each sample of a split; returns how many in a line.

    The split is that of the run's own data, or of those in the place that is given. Raises
    UserError where the data cannot be had, or the task predicts nothing.
    """
    request = job.request
    model = loaded(job.checkpoint, request.device, request.trust)
    if type(model.task).predict_step is LightningModule.predict_step:
        raise UserError(
            f"predict: task={job.checkpoint.task} predicts nothing of single samples: test it with "
            f"python evaluate.py ckpt_path={job.checkpoint.run.path}"
        )
    read_elsewhere(model, job.files)
    split = request.split or "test"
    batches, size = split_batches(model, split, request.batch_size)
    with whole_table(job.target, request.overwrite) as table:
        for batch, found in model.steps(batches, size):
            columns: dict[str, Column] = {"row": batch["index"].cpu()}
            label: Any = batch.get("label")
            if isinstance(label, Tensor):
                columns["target"] = label.cpu()
            table.add({**columns, **found})
    said = [f"{table.rows:,} samples of split={split}", table.convergence()]
    return ", ".join(part for part in said if part)


def read_elsewhere(model: Loaded, files: Sequence[Path]) -> None:
    """Have the data read from a file or folder in place of its own path. Raises UserError."""
    if not files:
        return
    task = model.config["task"]
    if len(files) > 1 or "path" not in task:
        raise UserError(
            f"predict reads the data of task={model.choices['task']}: "
            + ("give one folder" if "path" in task else "give split=test in place of files")
        )
    task["path"] = str(files[0])
