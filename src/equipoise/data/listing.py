"""What lies in a folder of a dataset, without what operating systems and tools leave there."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from equipoise.errors import UserError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LEFT_BEHIND = frozenset(
    {"__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
)
"""Folders that are no part of a dataset; whatever begins with a dot is none either."""


def is_content(name: str) -> bool:
    """Tell whether a file or folder of this name was put there by its owner.

    `.ipynb_checkpoints`, `.DS_Store` and the twins `._a.jpg` that macOS writes were not.
    """
    return not name.startswith(".") and name not in LEFT_BEHIND


def folders_in(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder; raises UserError if it cannot be read."""
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir())


def files_in(folder: Path, endings: Collection[str]) -> list[str]:
    """Return the sorted names of the files with one of the endings, in lower or upper case.

    A link to nothing is among them, so that whoever opens it names it. Raises UserError where the
    folder cannot be read.
    """
    return sorted(
        entry.name
        for entry in _entries(folder)
        if os.path.splitext(entry.name)[1].lower() in endings and not entry.is_dir()
    )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if is_content(entry.name)]
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read ({error.strerror}): give it the permissions that "
            "it needs, or set task.path to another one."
        ) from error
