"""The folders of runs: each belongs to one run at a time, and a run that never began leaves none.

A new folder is made by one process only. While a run is active in its folder it holds a lock on
the file LOCK there, which is released when the process ends, however that happens.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.config import machine
from equipoise.config.exchange import model_name
from equipoise.errors import UserError

if TYPE_CHECKING:
    from equipoise.config.compose import Composition


LOCK = ".lock"
RECORD = frozenset({".hydra", "train.log"})
"""The entries that Hydra puts into a folder before the run begins."""


@dataclass
class Claim:
    """The folders that this process has created for a run (the innermost first), and its lock.

    empty: whether it found nothing in the folder; refused: whether the run was, before it began.
    """

    created: list[Path] = field(default_factory=list)
    lock: int | None = None
    empty: bool = False
    refused: bool = False


claims: dict[Path, Claim] = {}
"""The folders that this process holds."""


def claim(
    path: Path,
    checkpoint: str | Path | None = None,
    name: str = "run_dir",
    record: Collection[str] = (),
) -> Path:
    """Take a folder that was named for one run: a new or empty one, or that of its `checkpoint`.

    name: the setting that named it; record: entries that it may already have.
    Raises UserError where it holds other results, is in use or cannot be written.
    """
    if Path(os.path.realpath(path)) in claims:  # resolve() would raise for links in a circle
        raise UserError(_in_use(path, name))
    try:
        created = _make(path)
        empty = {entry.name for entry in path.iterdir()} <= {LOCK}
        if not created:
            _check_contents(path, checkpoint, name, record)
        lock = _locked(path, name)
    except NotADirectoryError as error:
        raise UserError(f"{name}={path} is not a folder, or lies below a file") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot write to {name}={path}: {reason}") from error
    claims[path.resolve()] = Claim(created, lock, empty)
    return path


def claim_new(parent: Path, name: str) -> Path:
    """Make and take `parent/name`, or the first free one of `parent/name_2`, `parent/name_3`, …

    Raises UserError where it cannot be written.
    """
    number = 1
    while True:
        path = parent / (name if number == 1 else f"{name}_{number}")
        try:
            created = _make(path)
        except OSError as error:
            raise UserError(f"cannot create the folder {path}: {error.strerror}") from error
        if created:
            claims[path.resolve()] = Claim(created, _locked(path, "run_dir"), empty=True)
            return path
        number += 1


@contextmanager
def held(path: Path, record: Collection[str] = RECORD) -> Iterator[Path]:
    """Release a folder at the end; remove it if it holds nothing but `record`."""
    try:
        yield path
    finally:
        taken = claims.pop(path.resolve(), None)
        if taken is not None:
            _give_back(path, taken, {*record, LOCK})


def refuse(path: Path) -> None:
    """Leave nothing of a run that was refused before it began, in a folder that was empty."""
    taken = claims.get(path.resolve())
    if taken is not None:
        taken.refused = taken.empty


def at_work(path: Path) -> bool:
    """Whether a run is active in a folder, which is not changed."""
    if path.resolve() in claims:  # opening the file would release this process's own lock
        return True
    try:
        file = os.open(path / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def _make(path: Path) -> list[Path]:
    """Make a folder and those above it; returns those created, none if it existed."""
    created: list[Path] = []
    for parent in (parent for parent in reversed(path.parents) if not parent.is_dir()):
        with suppress(FileExistsError):
            parent.mkdir()
            created.insert(0, parent)
    try:
        path.mkdir()
    except FileExistsError:
        return []
    return [path, *created]


def _check_contents(
    path: Path, checkpoint: str | Path | None, name: str, record: Collection[str]
) -> None:
    inside = checkpoint is not None and path.resolve() in Path(checkpoint).resolve().parents
    if not inside and {entry.name for entry in path.iterdir()} - {LOCK, *record}:
        if at_work(path):
            raise UserError(_in_use(path, name))
        resumable = name == "run_dir" and (path / "checkpoints" / "last.ckpt").is_file()
        hint = ", or add resume=auto to continue the run in it" if resumable else ""
        raise UserError(
            f"{name}={path} is not empty; choose a new folder, such as {name}={path}_2{hint}"
        )


def _locked(path: Path, name: str) -> int | None:
    """Lock the folder; None on a file system that has no locks."""
    while True:
        file = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            os.close(file)
            raise UserError(_in_use(path, name)) from error
        except OSError:
            os.close(file)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path / LOCK)):
                return file
        os.close(file)  # its last holder removed it meanwhile: try again


def _in_use(path: Path, name: str) -> str:
    return f"another run is active in {name}={path}; choose another folder"


def _give_back(path: Path, taken: Claim, record: Collection[str]) -> None:
    """Unlock, after removing a folder without results and those created around it."""
    left = {entry.name for entry in path.iterdir()} if path.is_dir() else None
    if left is not None and (taken.refused or left <= set(record)):
        for entry in path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != LOCK:
                entry.unlink()
        _unlock(path, taken)
        for folder in taken.created:
            if any(folder.iterdir()):
                return
            with suppress(OSError):  # another run began in it at this moment
                folder.rmdir()
    _unlock(path, taken)


def _unlock(path: Path, taken: Claim) -> None:
    (path / LOCK).unlink(missing_ok=True)
    if taken.lock is not None:
        os.close(taken.lock)
        taken.lock = None


def run_directory(
    composition: Composition,
    purpose: str,
    of_hydra: str | None = None,
    leftovers: Collection[str] = (),
) -> Path:
    """Make the folder of the run: `run_dir` if it was given, else runs/<task>/<model>/<time>.

    of_hydra: `hydra.run.dir`, if the command line sets it. leftovers: entries that the folder may
    hold. A process that takes part in another's run makes none. Raises UserError where a named
    folder holds other results, or another run is active in it: only a training may resume in the
    folder of the run that its checkpoint belongs to.
    """
    config, choices = composition.config, composition.choices
    decides = machine.decides(config.trainer)
    named = any(line.startswith("run_dir=") for line in composition.overrides)
    if of_hydra or (named and config.run_dir):
        path = shortened(Path(of_hydra)) if of_hydra else Path(config.run_dir)
        resumed = config.ckpt_path if purpose == "train" else None
        name = "hydra.run.dir" if of_hydra else "run_dir"
        return claim(path, resumed, name, leftovers) if decides else path
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    parent = Path("runs") / choices["task"] / model_name(config, choices)
    name = stamp if purpose == "train" else f"{stamp}_{purpose}"
    return claim_new(parent, name) if decides else parent / name


def shortened(path: Path) -> Path:
    """The path from the working directory where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def check_no_folder_of_hydra(overrides: Sequence[str]) -> None:
    """Raise where a folder is set for Hydra, which runs nothing here."""
    for line in overrides:
        if line.startswith(("hydra.run.", "hydra.sweep.", "hydra.mode=")):
            raise UserError(f"{line}: Hydra runs nothing here; set the folder with run_dir")
