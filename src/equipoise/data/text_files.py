"""Reading text from files: strict UTF-8, and a file for each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from equipoise.data.image_data_module import SplitName
from equipoise.errors import UserError

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
PUBLISHED_NAMES: Mapping[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("valid", "val", "validation"),
    "test": ("test",),
}

SplitFiles = tuple[Path, Path, Path]
Stamp = tuple[tuple[int, int], ...]


def read_utf8(file: Path) -> str:
    """Return the text of a file, with line ends as \\n and without a byte order mark.

    Raises UserError when the file cannot be read, is empty or is not valid UTF-8.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"The text {file} cannot be read ({error.strerror}).") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"The text {file} is not valid UTF-8 at byte {error.start}: convert it, for example "
            "with iconv -t UTF-8, or leave the file out."
        ) from error
    if not text.strip():
        raise UserError(f"The text {file} is empty: fetch it again, or leave the file out.")
    return text.replace("\r\n", "\n")


def published_files(folder: Path, layouts: Sequence[str]) -> SplitFiles:
    """Return the files of train, validation and test in the first layout that the folder has.

    A layout is a name such as "wiki.{}.tokens". Raises UserError that names the file that is
    missing.
    """
    layout = next((known for known in layouts if split_file(folder, known, "train")), None)
    if layout is None:
        wanted = " or ".join(known.format("train") for known in layouts)
        raise UserError(f"The folder {folder} has no {wanted}: set task.path to the one that does.")
    train, val, test = (_required(folder, layout, name) for name in SPLITS)
    return train, val, test


def split_file(folder: Path, layout: str, name: SplitName) -> Path | None:
    """Return the file of a split under any of its usual names, or None."""
    files = (folder / layout.format(word) for word in PUBLISHED_NAMES[name])
    return next((file for file in files if file.is_file()), None)


def stamp(files: Sequence[Path]) -> Stamp:
    """Return what changes when one of the files does."""
    found = [file.stat() for file in files]
    return tuple((status.st_mtime_ns, status.st_size) for status in found)


def _required(folder: Path, layout: str, name: SplitName) -> Path:
    file = split_file(folder, layout, name)
    if file is None:
        wanted = layout.format(PUBLISHED_NAMES[name][0])
        raise UserError(f"The folder {folder} has no {wanted}: put the file of that split there.")
    return file
