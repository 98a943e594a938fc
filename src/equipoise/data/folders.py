"""The folder of a dataset, and its contents apart from what operating systems and tools leave.

A dataset may come from anywhere, and neither its links nor the names in its lists may lead to
unrelated files: call `within` before opening any of them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from equipoise.errors import Unreadable, UserError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
PARQUET = (".parquet",)
LEFT_BEHIND = frozenset(
    {"__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
)
"""Folders that are not part of a dataset; nor is anything whose name begins with a dot."""
LINKS = "EQUIPOISE_LINKS"
"""The environment variable that lists, separated by colons, further folders into which links of a
dataset may lead."""
_named: dict[Path, Path] = {}
"""The folders that the user has named: the absolute path of each, and where its links lead."""


def required_path(path: str | None, refusal: str) -> str:
    """The path; raises UserError with the sentence `refusal` if it is None."""
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
    return named(folder)


def named(folder: Path) -> Path:
    """The folder, recorded as named by the user: its contents may be read."""
    _named[Path(os.path.normpath(folder.absolute()))] = folder.resolve()
    return folder


def within(path: Path, folder: Path) -> Path:
    """A path found in a folder, after checking that its links and `..` stay in what the user named.

    If the user has named no folder that contains this one, the folder itself counts as named.
    Raises Unreadable if the path leads elsewhere, or to something other than a file or folder.
    """
    place = Path(os.path.normpath(folder.absolute()))
    home = next((_named[root] for root in (place, *place.parents) if root in _named), None)
    real = Path(os.path.realpath(path))  # resolve() would raise for links in a circle
    allowed = (home or folder.resolve(), *_named.values(), *_allowed_by_user())
    if not any(real.is_relative_to(root) for root in allowed):
        raise Unreadable(
            f"{path} leads out of its dataset, to {real}: put the file itself there, or, if you "
            f"trust the dataset, set {LINKS}={real.parent} in the environment"
        )
    if real.exists() and not (real.is_file() or real.is_dir()):
        raise Unreadable(f"{path} is a device or a pipe, not a file: take it out of the dataset")
    return path


def _allowed_by_user() -> Iterator[Path]:
    """The folders of `LINKS`, and the hub's downloads, whose folders are links into one another."""
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    yield Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE", f"{home}/hub"))).resolve()
    for word in filter(None, os.environ.get(LINKS, "").split(os.pathsep)):
        yield Path(os.path.expanduser(word)).resolve()


def expanded(path: str) -> Path:
    """The path with ~ replaced by the user's home folder; raises UserError if that is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"The home folder in {path} is unknown: set task.path to the full path."
        ) from error


def file_stamp(path: str) -> tuple[int, int]:
    """A value that changes when the file does; zeros if there is no file."""
    file = Path(os.path.expanduser(path))  # Path's own raises for the home of an unknown user
    if not file.is_file():
        return 0, 0
    state = file.stat()
    return state.st_mtime_ns, state.st_size


def is_content(name: str) -> bool:
    """Whether a file or folder of this name was put there by its owner.

    `.ipynb_checkpoints`, `.DS_Store` and the twins `._a.jpg` that macOS writes do not count.
    """
    return not name.startswith(".") and name not in LEFT_BEHIND


def folders_in(folder: Path) -> list[str]:
    """The sorted names of the folders in a folder; raises UserError if it cannot be read."""
    return sorted(entry.name for entry in _entries(folder) if _is_folder(entry))


def files_in(folder: Path, endings: Collection[str] | None = None) -> list[str]:
    """The sorted names of the files that have one of the endings, in lower or upper case.

    Broken links are included, so that whoever opens one can name it. Raises UserError if the folder
    cannot be read.
    """
    return sorted(
        entry.name
        for entry in _entries(folder)
        if (endings is None or os.path.splitext(entry.name)[1].lower() in endings)
        and not _is_folder(entry)
    )


def holds_parquet(folder: Path) -> bool:
    """Whether the folder, or one directly in it, has parquet files."""
    places = (folder, *(folder / name for name in folders_in(folder)))
    return any(files_in(place, PARQUET) for place in places)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle; other broken ones are no folders either
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    within(folder, folder)
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if is_content(entry.name)]
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read ({error.strerror}): give it the permissions that "
            "it needs, or set task.path to another one."
        ) from error
    for entry in found:
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            within(Path(entry.path), folder)
    return found
