"""Files that are there whole or not at all, whatever ends the process or the machine meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PARTIAL = ".partial"
"""How the name of a file ends that is not finished."""


@contextmanager
def whole(target: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file beside the target, which takes its place once it is written and on the disk.

    mode: "w" for UTF-8 text, whose line ends stay as they are written, or "wb". The folder is made
    where there is none. Raises OSError where it cannot be written; what was there before then
    stays, and nothing of the new file is left.
    """
    partial = target.with_name(f"{target.name}{PARTIAL}")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(partial, mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException:
        if partial.is_file():
            partial.unlink()
        raise
    sync_folder(target.parent)


def write_whole(target: Path, content: str | bytes) -> None:
    """Write a text or bytes whole or not at all. Raises OSError as `whole` does."""
    with whole(target, "w" if isinstance(content, str) else "wb") as file:
        file.write(content)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder written to the disk, where the system can open one."""
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def reason(error: BaseException) -> str:
    """What the system says, such as "No space left on device"; torch hides it behind its own."""
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.strip().splitlines()[0].rstrip(".")
