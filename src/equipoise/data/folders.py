"""The folder of a dataset, and what lies in it beside what operating systems and tools leave."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from equipoise.errors import UserError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
PARQUET = (".parquet",)
LEFT_BEHIND = frozenset(
    {"__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
)
"""Folders that are no part of a dataset; whatever begins with a dot is none either."""


def required_path(path: str | None, refusal: str) -> str:
    """The path; raises UserError with the sentence `refusal` where none was given."""
    if path is None:
        raise UserError(refusal)
    return path


def is_local(path: str) -> bool:
    """Whether `path` names a folder of this machine and not a dataset `owner/name`."""
    written_as_folder = path.startswith((".", "/", "~")) or path.count("/") > 1 or "\\" in path
    return written_as_folder or Path(path).exists()


def local_folder(path: str) -> Path:
    """The folder that `path` names; raises UserError when there is none."""
    folder = expanded(path)
    if not folder.is_dir():
        raise UserError(f"The folder {path} does not exist: set task.path to the dataset's folder.")
    return folder


def expanded(path: str) -> Path:
    """The path with the folder of a user in place of ~; raises UserError without one."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"The home folder in {path} is unknown: set task.path to the full path."
        ) from error


def file_stamp(path: str) -> tuple[int, int]:
    """What changes when the file does; zeros if there is none."""
    file = Path(os.path.expanduser(path))  # Path's own raises for the home of an unknown user
    if not file.is_file():
        return 0, 0
    state = file.stat()
    return state.st_mtime_ns, state.st_size


def is_content(name: str) -> bool:
    """Whether a file or folder of this name was put there by its owner.

    `.ipynb_checkpoints`, `.DS_Store` and the twins `._a.jpg` that macOS writes were not.
    """
    return not name.startswith(".") and name not in LEFT_BEHIND


def folders_in(folder: Path) -> list[str]:
    """The sorted names of the folders in a folder; raises UserError if it cannot be read."""
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir())


def files_in(folder: Path, endings: Collection[str] | None = None) -> list[str]:
    """The sorted names of the files, of those with one of the endings, in lower or upper case.

    A link to nothing is among them, so that whoever opens it names it. Raises UserError where the
    folder cannot be read.
    """
    return sorted(
        entry.name
        for entry in _entries(folder)
        if (endings is None or os.path.splitext(entry.name)[1].lower() in endings)
        and not entry.is_dir()
    )


def holds_parquet(folder: Path) -> bool:
    """Whether the folder, or one directly in it, has parquet files."""
    places = (folder, *(folder / name for name in folders_in(folder)))
    return any(files_in(place, PARQUET) for place in places)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if is_content(entry.name)]
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read ({error.strerror}): give it the permissions that "
            "it needs, or set task.path to another one."
        ) from error
