"""Resuming a run: what must fit before anything starts, and what lies in its folder."""

from __future__ import annotations

import csv
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from equipoise.config.stored import Stored

WANDB = "WandbLogger"


def resumes_in_place(directory: Path, resume_from: str | None) -> bool:
    """Whether a run resumes in its own folder: the one that the checkpoint lies in."""
    return bool(resume_from) and directory.resolve() in Path(str(resume_from)).resolve().parents


def check_resumable(stored: Stored, trainer: DictConfig) -> None:
    """Raise UserError where the checkpoint cannot be resumed for the length that was asked for."""
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


def keep_earlier_curve(loggers: Sequence[Any], stored: Stored, directory: Path) -> None:
    """Hand the rows of a broken run's metrics.csv to the logger that would replace the file.

    Only where the run resumes in its own folder, and only the rows up to the checkpoint: those
    after it are written anew.
    """
    from lightning.pytorch.loggers import CSVLogger

    if not resumes_in_place(directory, str(stored.path)):
        return
    for logger in loggers:
        file = Path(logger.log_dir) / "metrics.csv" if isinstance(logger, CSVLogger) else None
        if file is not None and file.is_file():
            with file.open(newline="") as lines:
                rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(lines)]
            logger.experiment.metrics.extend(_up_to(stored, rows))


def _up_to(stored: Stored, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows that were written before the checkpoint, or of the epoch that it closes."""
    kept = len(rows) if stored.rows is None else stored.rows
    while kept < len(rows) and float(rows[kept].get("epoch") or stored.epochs) < stored.epochs:
        kept += 1
    return rows[:kept]


def settle_wandb_run(config: DictConfig, typed: Sequence[str], same_run: bool) -> None:
    """Give a W&B run its id beforehand: it is stored with the configuration.

    A run that resumes in its own folder resumes its W&B run; in another folder it is a new one.
    """
    for name, node in (config.get("logger") or {}).items():
        if not node or not str(node.get("_target_", "")).endswith(WANDB):
            continue
        keys = (f"logger.{name}.id=", f"logger.{name}.version=")
        named_by_user = any(line.startswith(keys) for line in typed)
        if not named_by_user and not (same_run and node.get("id")):
            node.id = secrets.token_hex(4)
