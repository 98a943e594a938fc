"""Files that exist whole or not at all, even if the process or the machine dies meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PARTIAL = ".partial"
"""The suffix of an unfinished file's name."""


@contextmanager
def whole(target: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file beside the target that replaces it once it is complete and synced to the disk.

    mode: "w" for UTF-8 text, whose line ends are kept, or "wb". The folder is made
    where it is missing. Raises OSError where it cannot be written; then the earlier file stays,
    and nothing of the new file is left.
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
    """Sync the names in a folder to the disk, where the system can open folders."""
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def reason(error: BaseException) -> str:
    """The system's message, such as "No space left on device", which torch hides in its own."""
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.strip().splitlines()[0].rstrip(".")
