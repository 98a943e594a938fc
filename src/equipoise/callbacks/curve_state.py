"""The training curve in a checkpoint: how far it is written, and what the next row holds so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from equipoise.callbacks.curve_source import curve_sources
from equipoise.callbacks.observers import Observer
from equipoise.callbacks.training_position import position

KEY = "curve"


class CurveState(Observer):
    """Keeps what the sources of the curve have summed up, and how many rows metrics.csv has.

    So a resumed run writes the rows that the whole run would have written, and those between the
    checkpoint and the end of the broken run are known. Where an epoch is cut short, the state
    before its last row counts, since a resumed run goes on with that epoch. It must stand before
    the sources in the list.
    """

    def __init__(self) -> None:
        self.before_the_end: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run."""
        self.before_the_end = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the state of an epoch that is cut short before its row is written."""
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
    """The number of rows of a metrics.csv, without its header; 0 where there is none."""
    if not file.is_file():
        return 0
    with file.open("rb") as lines:
        return max(sum(1 for _ in lines) - 1, 0)


def _state(trainer: Trainer) -> dict[str, Any]:
    sums = {source.state_key: source.summed_up() for source in curve_sources(trainer)}
    files = [Path(log.log_dir) for log in trainer.loggers if isinstance(log, CSVLogger)]
    rows = written_rows(files[0] / "metrics.csv") if files else 0
    return {"rows": rows, "sources": {key: state for key, state in sums.items() if state}}
