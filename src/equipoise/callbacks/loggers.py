"""The loggers of a run: Lightning's, but each holds every step only once, even after resuming.

A run that resumes in its own folder writes the rows after its checkpoint again. `rewind` first
removes those that the interrupted run had written.
"""

from __future__ import annotations

import math
import re
import sqlite3
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, runtime_checkable

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import (
    CSVLogger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from equipoise.callbacks.wandb_file import cut_after

SQLITE = "sqlite:///"
STEP = "trainer/global_step"
AT_THE_END = ("test/", "report/", "_hparams_/")
"""Prefixes of what a run writes once; a resumed run writes it again."""
RECENT = 60.0
"""Seconds in which W&B surely writes a row; until then it is kept, among MOST_RECENT at most."""
MOST_RECENT = 4096
RESUMED_AT = "resumed_at_step"
LONGEST_PARAMETER = 250
NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
"""What MLflow refuses in a parameter's name, such as the @ of choices/solver@gradient.solver."""


@dataclass(frozen=True)
class Kept:
    """What a logger keeps when its run resumes.

    steps: the steps at the checkpoint; last: the last step of a row that the resumed run does not
    write again; validated: whether the checkpoint includes the validation at its step; marks: what
    the loggers have stored in the checkpoint, by class name.
    """

    steps: int
    last: int
    validated: bool = True
    marks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def through(self) -> int:
        """The last step that is kept; if an epoch was cut short, its last row is written again."""
        return self.steps if self.last >= self.steps else self.steps - 1

    def keeps(self, name: str, step: int) -> bool:
        """Whether a number is kept. Lightning logs a validation one step before its own."""
        if name.startswith(AT_THE_END):
            return False
        if name.startswith("val/") and not self.validated:
            return step < self.steps - 1
        return step <= self.through


@runtime_checkable
class Rewinding(Protocol):
    """A logger that can go back to a checkpoint."""

    def rewind(self, kept: Kept) -> None:
        """Remove what the resumed run will write again."""
        ...


class CurveLogger(CSVLogger):
    """Lightning's CSVLogger, but it leaves the cell of a NaN empty.

    A mean over no finite value, or a score of classes that do not occur, is NaN; readers of CSV
    files understand an empty cell as missing, and some take "nan" for text. If the folder is
    removed during the run, it is created again, and `lost` says so.
    """

    lost: str = ""

    @rank_zero_only
    def save(self) -> None:
        """Append the rows that are not written yet."""
        folder = Path(self.log_dir)
        if not folder.is_dir():
            folder.mkdir(parents=True)
            self.lost = f"{folder} was removed during the run, with everything written before"
            warnings.warn(f"{self.lost}; the run continues in a new folder", stacklevel=2)
        super().save()

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Record a row of numbers and texts."""
        super().log_metrics({k: v for k, v in metrics.items() if not _is_nan(v)}, step)


class OutlastedLogger:
    """A logger whose failure does not end the run: if it fails after the start, it warns once.

    lost: a sentence on what it could not record, empty while it works. After a failure it records
    nothing more.
    """

    lost: str = ""

    def __init_subclass__(cls) -> None:
        """Guard the methods that a run calls while it works."""
        super().__init_subclass__()
        for name in ("log_metrics", "log_image", "save", "finalize", "after_save_checkpoint"):
            if hasattr(cls, name):
                setattr(cls, name, _guarded(getattr(cls, name)))


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def guarded(self: OutlastedLogger, *args: Any, **kwargs: Any) -> Any:
        if self.lost:
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # any error of a service, its client or a disk
            words = " ".join(str(error).split()) or type(error).__name__
            self.lost = f"{type(self).__name__} has failed and records no more of this run: {words}"
            warnings.warn(f"{self.lost}; the run continues without it", stacklevel=2)
            return None

    return guarded


class OncePerStep:
    """Remembers the step at which each name was last written: `epoch` is in every kind of row.

    A validation's row comes after that of the last training step, but is one step earlier.
    """

    def __init__(self) -> None:
        self.latest: dict[str, int] = {}

    def new(self, metrics: Mapping[str, Any], step: int) -> dict[str, Any]:
        """The numbers not yet written at this step; texts are left out."""
        fresh = {
            name: value
            for name, value in metrics.items()
            if step > self.latest.get(name, -1) and not isinstance(value, str)
        }
        self.latest |= dict.fromkeys(fresh, step)
        return fresh


class CurveTensorBoardLogger(OutlastedLogger, TensorBoardLogger):
    """Lightning's TensorBoardLogger, whose event files can be taken back to a checkpoint."""

    @cached_property
    def once(self) -> OncePerStep:
        """What has been written so far."""
        return OncePerStep()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write each number once at its step."""
        super().log_metrics(self.once.new(metrics, step or 0), step)

    def rewind(self, kept: Kept) -> None:
        """Rewrite each event file with what is kept of it."""
        for file in sorted(Path(self.log_dir).glob("events.out.tfevents.*")):
            _rewrite_events(file, kept)


class CurveWandbLogger(OutlastedLogger, WandbLogger):
    """Lightning's WandbLogger with one row of W&B's history per step.

    The steps of the history are those of the run, so a run that resumes online continues after the
    last step on the server, and no step is counted twice. W&B's service writes its file only every
    15 seconds and dies with a killed run, so checkpoints hold the last rows too. If W&B does not
    answer, or fails later, a local run takes its place.
    """

    latest: int = 0

    @cached_property
    def recent(self) -> deque[tuple[float, int, dict[str, Any]]]:
        """The rows of the last minute, each with its time and step."""
        return deque(maxlen=MOST_RECENT)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, made without Lightning's argument `anonymous`, which W&B only warns about."""
        if self._wandb_init.get("anonymous") is None:
            self._wandb_init.pop("anonymous", None)
        try:
            return super().experiment
        except Exception as error:
            if self._wandb_init.get("mode") == "offline":
                raise
            return self._locally(error)

    def _locally(self, error: BaseException) -> Any:
        """A local run of the same id, in place of one that W&B does not accept."""
        import wandb
        from wandb.sdk.lib import module

        words = " ".join(str(error).split()) or type(error).__name__
        warnings.warn(
            f"W&B cannot be reached ({words}): the run is kept in {self.save_dir}/wandb from now "
            "on, and `wandb sync` uploads it later",
            stacklevel=2,
        )
        with suppress(Exception):  # a broken service may be unable to shut down
            wandb.teardown(exit_code=1)
        module.unset_globals()
        self._wandb_init.update(mode="offline", resume=None)
        self._experiment = None
        return self.experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add numbers, texts or pictures to the row of a step, the latest one if none is given."""
        if self._wandb_init.get("sync_tensorboard"):  # then W&B takes TensorBoard's steps
            super().log_metrics(metrics, step)
            return
        named = {f"{self._prefix}-{k}" if self._prefix else k: v for k, v in metrics.items()}
        self.latest = max(self.latest, step or 0)
        row = {**named, STEP: self.latest}
        try:
            self.experiment.log(row, step=self.latest)
        except Exception as error:
            if self._wandb_init.get("mode") == "offline":
                raise
            local = self._locally(error)
            for _, step, kept in self.recent:  # what the service may not have passed on
                local.log({**kept, STEP: step}, step=step)
            local.log(row, step=self.latest)
        plain = {k: v for k, v in metrics.items() if isinstance(v, int | float | str)}
        self.recent.append((monotonic(), self.latest, plain))

    @property
    def mark(self) -> list[tuple[int, dict[str, Any]]]:
        """The rows that may not be written yet, for a checkpoint."""
        since = monotonic() - RECENT
        return [(step, dict(row)) for when, step, row in self.recent if when > since]

    def rewind(self, kept: Kept) -> None:
        """Truncate the files of earlier offline runs of the same id after the checkpoint.

        Earlier rows that are missing there are written to the new file, or to the server.
        """
        folder, last = Path(self.save_dir or ".") / "wandb", -1
        for file in sorted(folder.glob(f"offline-run-*-{self.version}/run-{self.version}.wandb")):
            last = max(last, cut_after(file, kept.through))
        for step, row in kept.marks.get(type(self).__name__, []):
            if last < step <= kept.through:
                self.log_metrics(row, step)


class CurveMLFlowLogger(OutlastedLogger, MLFlowLogger):
    """Lightning's MLFlowLogger, which continues the MLflow run of a checkpoint."""

    @cached_property
    def once(self) -> OncePerStep:
        """What has been written so far."""
        return OncePerStep()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write each number once at its step."""
        super().log_metrics(self.once.new(metrics, step or 0), step)

    @rank_zero_only
    def log_image(
        self, key: str, images: list[str], step: int | None = None, caption: Any = None
    ) -> None:
        """Keep PNG files as artifacts in the folder that the key names."""
        folder = key.rpartition("/")[0] or None
        for image in images:
            self.experiment.log_artifact(self.run_id, image, folder)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Write the configuration; a setting that a resumed run has changed becomes a tag.

        MLflow's parameters can be written only once.
        """
        from lightning.fabric.utilities.logger import _flatten_dict

        flat = {
            NOT_IN_NAMES.sub(":", name): str(value)[:LONGEST_PARAMETER]
            for name, value in _flatten_dict(params).items()
        }
        known = self.experiment.get_run(self.run_id).data.params
        super().log_hyperparams({k: v for k, v in flat.items() if k not in known})
        for name, value in flat.items():
            if name in known and known[name] != value:
                self.experiment.set_tag(self.run_id, f"resumed/{name}", value)

    @property
    def mark(self) -> str | None:
        """The id of the run, for a checkpoint; None if no run has begun."""
        return self._run_id

    def rewind(self, kept: Kept) -> None:
        """Continue the run of the checkpoint; a local database loses the numbers after it.

        A server cannot remove numbers, so a tag says at which step the run was resumed.
        """
        self._run_id = kept.marks.get(type(self).__name__, self._run_id)
        if self._run_id is None:
            return
        file = Path(str(self._tracking_uri).removeprefix(SQLITE))
        if str(self._tracking_uri).startswith(SQLITE) and file.is_file():
            _cut_database(file, self._run_id, kept)
        self.experiment.set_tag(self._run_id, RESUMED_AT, kept.steps)
        self.experiment.update_run(self._run_id, status="RUNNING")


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | Tensor) and math.isnan(value)


def _rewrite_events(file: Path, kept: Kept) -> None:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    partial = file.with_name(f"partial.{file.name}")
    with partial.open("wb") as target:
        writer = RecordWriter(target)
        for record in RawEventFileLoader(str(file)).Load():
            event = Event.FromString(record)
            if event.WhichOneof("what") == "summary":
                values = [v for v in event.summary.value if kept.keeps(v.tag, event.step)]
                del event.summary.value[:]
                event.summary.value.extend(values)
                if not values:
                    continue
            writer.write(event.SerializeToString())
    partial.replace(file)


def _cut_database(file: Path, run: str, kept: Kept) -> None:
    """Delete numbers from MLflow's tables of all metrics and of the latest ones."""
    with closing(sqlite3.connect(file)) as database, database:
        rows = database.execute(
            "SELECT DISTINCT key, step FROM metrics WHERE run_uuid = ?", (run,)
        ).fetchall()
        gone = [(run, key, step) for key, step in rows if not kept.keeps(key, step)]
        for table in ("metrics", "latest_metrics"):
            database.executemany(
                f"DELETE FROM {table} WHERE run_uuid = ? AND key = ? AND step = ?", gone
            )
