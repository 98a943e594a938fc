"""Reading the checkpoints that runs leave."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from equipoise.config.stored import Stored, stored_run
from equipoise.errors import UserError

UNREADABLE = (
    OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError,
    OverflowError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
"""What a file that is no checkpoint, or a damaged one, makes its readers raise."""


def existing_checkpoint(path: str | Path) -> Path:
    """The path, if there is such a file; nothing heavy is imported to find that out.

    Raises UserError where there is none.
    """
    file = Path(path)
    if not file.is_file():
        near = sorted(file.parent.glob("*.ckpt")) if file.parent.is_dir() else []
        hint = f"did you mean {near[0]}?" if near else "give runs/<...>/checkpoints/last.ckpt"
        raise UserError(f"there is no checkpoint at {file}; {hint}")
    return file


def read_content(file: Path) -> Any:
    """What a checkpoint file holds, on the CPU, once its checksums are found right.

    Raises UserError where it cannot be read.
    """
    import torch

    try:
        if (damaged := _damaged_entry(file)) is not None:
            raise UserError(
                f"the checkpoint {file} is damaged: the checksum of its entry {damaged} is wrong; "
                "use another one, such as last.ckpt or best.ckpt of the same run"
            )
        return torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UserError(
            f"the checkpoint {file} cannot be read (truncated, or not written by a run of ours): "
            f"use another one, such as last.ckpt or best.ckpt of the same run"
        ) from error


def _damaged_entry(file: Path) -> str | None:
    """The first entry of the archive whose content does not have its checksum; torch reads on."""
    with zipfile.ZipFile(file) as archive:
        return archive.testzip()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint of ours, on the CPU.

    Raises UserError where there is no such file, it is truncated or holds something else.
    """
    file = existing_checkpoint(path)
    content = read_content(file)
    entries = set(content) if isinstance(content, dict) else set()
    missing = {"state_dict", "config", "choices"} - entries
    if missing:
        raise UserError(
            f"the checkpoint {file} was not written by a run of ours: it has no {min(missing)}"
        )
    return dict(content)


def read_stored(path: str | Path) -> Stored:
    """What the checkpoint at a path says. Raises UserError where it cannot be used.

    A command asks several times, and a large file is read once.
    """
    file = existing_checkpoint(path)
    status = file.stat()
    return _read(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _read(file: Path, modified: int, size: int) -> Stored:
    return stored_run(read_checkpoint(file), file)
