"""Samples of a split of the data, with whatever the task predicts for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from lightning.pytorch import LightningModule
from torch import Tensor

from equipoise.commands.predict.job import Job
from equipoise.commands.predict.table import Column, whole_table
from equipoise.data.loading import Batch
from equipoise.data.module import SplitName
from equipoise.errors import UserError
from equipoise.running.loaded import Loaded, loaded
from equipoise.running.surroundings import check_data

SETTINGS = frozenset({"split"})
STAGES = {"val": "validate", "test": "test"}


@runtime_checkable
class Preparing(Protocol):
    """A task that has something to do before its predictions."""

    def prepare_prediction(self, data: Any) -> None:
        """Do it; data: the data module."""
        ...


@runtime_checkable
class Reading(Protocol):
    """A data module that reads samples from elsewhere."""

    def new_samples(self, path: str) -> tuple[Iterable[Batch], int]:
        """Batches of the samples in a file, and the number of samples."""
        ...


def predict(job: Job) -> str:
    """Write the task's predictions for each sample of a split; returns a line that counts them.

    The split is that of the run's own data, or of the data in the given place; if the data module
    can read single samples from a file, the place may be such a file. Raises UserError
    where the data are unavailable, or the task predicts nothing.
    """
    request = job.request
    model = loaded(job.checkpoint, request.device, request.trust)
    if type(model.task).predict_step is LightningModule.predict_step:
        raise UserError(
            f"predict: task={job.checkpoint.task} predicts nothing for single samples: test it "
            f"with python evaluate.py ckpt_path={job.checkpoint.run.path}"
        )
    with whole_table(job.target, request.overwrite) as table:
        (batches, size), what = source(job, model)
        if isinstance(model.task, Preparing):
            model.task.prepare_prediction(model.data)
        for batch, found in model.steps(batches, size):
            table.add(columns_of(batch, found, model.class_names))
    said = [f"{table.rows:,} samples of {what}", table.convergence()]
    return ", ".join(part for part in said if part)


def source(job: Job, model: Loaded) -> tuple[tuple[Iterable[Batch], int], str]:
    """The batches, the number of their samples, and what those are. Raises UserError."""
    request, data = job.request, model.data
    if not job.files or request.split:
        read_elsewhere(model, job.files)
        split = request.split or "test"
        return split_batches(model, split, request.batch_size), f"split={split}"
    if not isinstance(data, Reading):
        read_elsewhere(model, job.files)
        return split_batches(model, "test", request.batch_size), "split=test"
    file = job.only_file("of samples")
    if request.batch_size is not None:
        model.data.batch_size = request.batch_size
    return data.new_samples(str(file)), str(file)


def columns_of(batch: Batch, found: Batch, names: Sequence[str]) -> dict[str, Column]:
    """The columns of the table; classes are given by name."""
    columns: dict[str, Column] = {"row": batch["index"].cpu()}
    for key in ("label", "target"):
        if isinstance(truth := batch.get(key), Tensor):
            columns["target"] = by_name(truth.cpu(), names)
    return columns | {n: by_name(v, names) if n == "label" else v for n, v in found.items()}


def by_name(classes: Tensor, names: Sequence[str]) -> Column:
    """The names of classes (B,), "" for -1; numbers that are not classes stay numbers."""
    numbers = not names or classes.is_floating_point() or classes.ndim > 1
    return classes if numbers else [names[k] if k >= 0 else "" for k in classes.tolist()]


def read_elsewhere(model: Loaded, files: Sequence[Path]) -> None:
    """Let the data be read from a file or folder instead of the own path. Raises UserError."""
    if not files:
        return
    task = model.config["task"]
    if len(files) > 1 or "path" not in task:
        raise UserError(
            f"predict reads the data of task={model.choices['task']}: "
            + ("give one folder" if "path" in task else "give split=test instead of files")
        )
    task["path"] = str(files[0])
    model.__dict__.pop("data", None)


def split_batches(model: Loaded, split: str, batch_size: int | None) -> tuple[Iterable[Batch], int]:
    """The batches of a split, "val" or "test", as the run evaluated them; and its samples.

    Raises UserError where the data are not on this machine.
    """
    check_data(model.config["task"])
    data: Any = model.data
    if batch_size is not None:
        data.eval_batch_size = batch_size
    data.setup(STAGES[split])
    if not hasattr(data, "splits"):
        raise UserError(f"predict: the data of task={model.choices['task']} have no splits to read")
    loader = data.test_dataloader() if split == "test" else data.val_dataloader()
    return cast(Iterable[Batch], loader), len(data.splits[cast(SplitName, split)])
