"""A prediction's settings, the files it reads, and the one it writes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from equipoise.commands.stored_model import StoredRequest
from equipoise.errors import UserError
from equipoise.running.run_checkpoint import StoredRun


@dataclass
class Request(StoredRequest):
    """The settings of a prediction, described by --help; None: the default."""

    output: str = "predictions.csv"
    overwrite: bool = False
    batch_size: int | None = None
    workers: int | None = None
    split: str | None = None
    top: int | None = None
    damaged: str = "error"
    overlays: bool = True
    pairs: str | None = None
    max_pairs: int | None = None
    beam: int | None = None
    length_penalty: float | None = None


@dataclass(frozen=True)
class Job:
    """A checkpoint, the settings, and the files or folders to read."""

    checkpoint: StoredRun
    request: Request
    files: list[Path]

    @property
    def target(self) -> Path:
        """The file to write."""
        return Path(self.request.output)

    def only_file(self, what: str) -> Path:
        """The one file to read; raises UserError for none or several. what: the kind of file."""
        if len(self.files) != 1 or self.files[0].is_dir():
            several = ", ".join(map(str, self.files)) or "none"
            raise UserError(f"predict takes one file {what}, not {several}")
        return self.files[0]


@contextmanager
def whole_file(target: Path, overwrite: bool, mode: str = "w") -> Iterator[IO[Any]]:
    """A file beside the target, which replaces it if all goes well.

    It is opened at once, so that nothing is computed that cannot be written. Raises UserError where
    it cannot be opened, or where the target exists and may not be replaced.
    """
    refuse_existing(target, overwrite)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
    text = {} if "b" in mode else {"newline": "", "encoding": "utf-8"}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open(mode, **text) as file:  # type: ignore[call-overload]
            try:
                yield file
            except BaseException:
                unfinished.unlink()
                raise
        os.replace(unfinished, target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from error


@contextmanager
def whole_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """A folder beside the target, which replaces it if all goes well.

    Raises UserError where the target exists and may not be replaced, or cannot be written.
    """
    refuse_existing(target, overwrite)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
            if target.exists():
                shutil.rmtree(target)
            os.replace(unfinished, target)
        except BaseException:
            shutil.rmtree(unfinished)
            raise
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from error


def refuse_existing(target: Path, overwrite: bool) -> None:
    """Raise UserError where the target exists and may not be replaced."""
    if target.exists() and not overwrite:
        raise UserError(
            f"{target} exists: name another file as the output, or replace it with overwrite"
        )
