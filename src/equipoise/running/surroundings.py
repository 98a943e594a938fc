"""Checks before a run starts: data, accounts, memory, and the run that it resumes.

The first three are checked before anything heavy is imported.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.config.about import about
from equipoise.config.exported import WEIGHTS
from equipoise.config.limits import MOST_TOKENS, PRODUCTS, SEQUENCES
from equipoise.config.machine import GIB, free_memory
from equipoise.errors import UserError
from equipoise.running.loggers import check_loggers
from equipoise.running.run_checkpoint import checkpoint_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from equipoise.config.stored import Stored


def check_surroundings(config: Mapping[str, Any]) -> None:
    """Raise UserError where the data of the task or the account of a logger is missing."""
    check_data(config["task"])
    check_tokens(config["task"])
    check_memory(config["task"])
    check_attention(config["task"], config["model"])
    check_loggers(config["logger"] or {})


def check_data(task: Mapping[str, Any]) -> None:
    """Raise UserError where a dataset must be named, or its file or folder is missing.

    `without_path` of a task says what to do if it needs a path, `from_hub` that the path may
    also name a dataset of the hub.
    """
    path = task.get("path")
    if path is None and about(task, "without_path"):
        raise UserError(str(about(task, "without_path")))
    if not isinstance(path, str) or (about(task, "from_hub") and not is_local(path)):
        return
    if not Path(path).expanduser().exists():
        raise UserError(f"There is no file or folder {path}: set task.path to the data.")


def initial_file(path: str) -> Path:
    """The file that `init_from` means: for a folder, its best, last or exported weights.

    Raises UserError where there is none.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return place
    if not place.is_dir():
        raise UserError(
            f"init_from={path}: there is no such file or folder; give a checkpoint, a run's folder "
            "or a file of weights"
        )
    try:
        file = checkpoint_of(place)
    except UserError as error:
        raise UserError(f"init_from={path}: {error}") from error
    return file / WEIGHTS if file.is_dir() else file


def data_is_there(task: Mapping[str, Any]) -> bool:
    """Whether the dataset is on this machine, if it has to be."""
    try:
        check_data(task)
    except UserError:
        return False
    return True


def is_local(path: str) -> bool:
    """Whether it is written as a path on this machine rather than as a dataset `owner/name`."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or "\\" in path


def check_tokens(task: Mapping[str, Any]) -> None:
    """Raise UserError where generated sequences are too many and too long to train on."""
    for name in SEQUENCES:
        count, length = task.get(name), task.get("length")
        if count and length and count * length > MOST_TOKENS:
            raise UserError(
                f"task.{name}={count} and task.length={length} make {count * length:,} tokens, but "
                f"at most {MOST_TOKENS:,} can be processed: choose smaller sizes"
            )


def check_memory(task: Mapping[str, Any]) -> None:
    """Raise UserError where sizes, each possible, together need more memory than there is."""
    free = free_memory()
    for names, each in PRODUCTS:
        sizes = [task.get(name) for name in names]
        if None in sizes:
            continue
        asked = each * math.prod(_product(size) for size in sizes)
        if asked > free:
            product = " and ".join(f"task.{name}={task[name]}" for name in dict.fromkeys(names))
            raise UserError(
                f"{product} need {asked / GIB:,.0f} GiB of memory at least, and {free / GIB:,.0f} "
                "are free: choose smaller sizes"
            )


def check_attention(task: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Raise UserError where the attention of every step to every other would not fit in memory.

    The scores of one head alone are (batch, length, length) numbers of 4 bytes.
    """
    length, batch, free = task.get("length"), task.get("batch_size"), free_memory()
    asked = 4 * (batch or 0) * (length or 0) ** 2
    if "window" in model and asked > free:
        raise UserError(
            f"task.batch_size={batch} and task.length={length} need {asked / GIB:,.0f} GiB of "
            f"memory at least for attention, and {free / GIB:,.0f} are free: choose smaller sizes"
        )


def _product(size: Any) -> float:
    return math.prod(size) if isinstance(size, Iterable) else float(size)


def resumes_in_place(directory: Path, resume_from: str | None) -> bool:
    """Whether a run resumes in its own folder, the one with the checkpoint."""
    return bool(resume_from) and directory.resolve() in Path(str(resume_from)).resolve().parents


def check_resumable(stored: Stored, trainer: DictConfig) -> None:
    """Raise UserError where the checkpoint cannot be resumed for the requested length."""
    if not stored.whole:
        raise UserError(
            f"the checkpoint {stored.path} holds only the weights (save_weights_only=true): it "
            "can be evaluated but not resumed; use one that was saved in full"
        )
    _refuse_shorter("max_steps", trainer.get("max_steps"), stored.steps, "steps")
    _refuse_shorter("max_epochs", trainer.get("max_epochs"), stored.epochs, "epochs")


def _refuse_shorter(key: str, limit: Any, reached: int, what: str) -> None:
    if isinstance(limit, int) and 0 <= limit < reached:
        raise UserError(
            f"trainer.{key}={limit} is less than the {reached} {what} that the checkpoint was "
            f"trained for: set a larger trainer.{key}, or evaluate it with evaluate.py"
        )
