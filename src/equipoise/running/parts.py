"""A built run, and the protocols that its task and its callbacks may offer.

The code that carries out a run knows no kind of task or callback: it looks for these protocols in
all of them, and uses those it finds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import lightning.pytorch as pl
from lightning.pytorch import LightningModule, Trainer

from equipoise.callbacks.lightning_overhead import Observer, every_callback, find_callback
from equipoise.config.own_code import NO_OWN_CODE, OwnCode
from equipoise.report.page import Picture

CallbackType = TypeVar("CallbackType", bound=pl.Callback)


@dataclass
class Run:
    """One run: its parts, its folder, and the names that metrics.json shows.

    init_from: for a run that starts from other weights, the report of the weights it took.
    origin: the entries of metrics.json that say where the run comes from.
    """

    data: pl.LightningDataModule
    task: pl.LightningModule
    trainer: pl.Trainer
    directory: Path
    choices: dict[str, str]
    seed: int
    config: dict[str, Any] = field(default_factory=dict)
    own_code: OwnCode = NO_OWN_CODE
    init_from: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def callbacks(self) -> list[pl.Callback]:
        """All callbacks of the trainer, in their order."""
        return every_callback(self.trainer)

    def find(self, kind: type[CallbackType]) -> CallbackType | None:
        """The first callback of a class."""
        return find_callback(self.trainer, kind)


@runtime_checkable
class Detailed(Protocol):
    """A task with details on its last test beside its metrics, or a data module on its files."""

    def details(self) -> dict[str, Any]:
        """Per-class values, pictures left out and the like, for `details` in metrics.json."""
        ...


@runtime_checkable
class Summarizing(Protocol):
    """A callback that adds to metrics.json."""

    def summary(self) -> Mapping[str, Any]:
        """Entries by key: `train`, `solver_stats` or `gradient_stats`, others below `details`."""
        ...


@runtime_checkable
class Restoring(Protocol):
    """A callback that changes the layers, and can restore their state for a file's weights."""

    def restore(
        self, module: pl.LightningModule, checkpoint: Mapping[str, Any], config: Mapping[str, Any]
    ) -> None:
        """Put the module into the state that the checkpoint was saved in; config: the run's."""
        ...


@runtime_checkable
class Saving(Protocol):
    """A callback that saves the run where it is interrupted."""

    last_checkpoint: Path


@runtime_checkable
class Reporting(Protocol):
    """A callback that shows the run on a page."""

    dirpath: Path

    def add(self, picture: Picture) -> None:
        """Have the page show a picture file that other code has drawn into the folder."""
        ...

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Write the page with the dictionary of metrics.json."""
        ...


@runtime_checkable
class Losing(Protocol):
    """A callback or logger whose failure does not end a run; `lost` says what it could not keep."""

    lost: str


class TrainingBegun(Observer):
    """Records that data, optimiser and loops could be set up."""

    def __init__(self) -> None:
        self.begun = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, exceptions come from a step."""
        self.begun = True

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """The same for an evaluation."""
        self.begun = True
