"""Reading text from files: strict UTF-8, and a file or a part of the text for each split."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from pathlib import Path

from equipoise.data.folders import files_in
from equipoise.data.module import SPLITS, SplitName, check_fraction
from equipoise.errors import UserError
from equipoise.errors.sizes import bounded_bytes

PUBLISHED_NAMES: Mapping[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("valid", "val", "validation"),
    "test": ("test",),
}

MARKS_OF_OTHERS = (
    (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"),
)  # fmt: skip
"""Byte order marks, longer ones first: that of UTF-32 begins with that of UTF-16."""

SplitFiles = tuple[Path, Path, Path]
Stamp = tuple[tuple[int, int], ...]


def read_utf8(file: Path) -> str:
    """The text of a file, with line ends as \\n and without a byte order mark.

    Raises UserError if the file cannot be read, is empty, is not valid UTF-8 or holds zero bytes,
    as UTF-16 without a mark and files that are not text do.
    """
    try:
        content = bounded_bytes(file, "text_bytes")
    except OSError as error:
        raise UserError(f"The text {file} cannot be read ({error.strerror}).") from error
    for mark, encoding in MARKS_OF_OTHERS:
        if content.startswith(mark):
            raise UserError(
                f"The text {file} is {encoding}: convert it, for example with iconv -f {encoding} "
                "-t UTF-8, or leave the file out."
            )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"The text {file} is not valid UTF-8 at byte {error.start}: convert it, for example "
            "with iconv -f LATIN1 -t UTF-8, or leave the file out."
        ) from error
    if "\0" in text:
        raise UserError(
            f"The text {file} holds zero bytes, as UTF-16 and files that are not text do: convert "
            "it to UTF-8, or leave the file out."
        )
    if not text.strip():
        raise UserError(f"The text {file} is empty: fetch it again, or leave the file out.")
    return with_line_feeds(text)


def with_line_feeds(text: str) -> str:
    """The text with \\n in place of the line ends of all systems: \\r\\n, \\r and \\n.

    As when Python iterates over a file; form feeds and Unicode separators do not end a line.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n")


def published_files(folder: Path, layouts: Sequence[str]) -> SplitFiles:
    """The files of train, validation and test in the first layout that the folder has.

    A layout is a name such as "wiki.{}.tokens". Raises UserError, which names the file, if one is
    missing.
    """
    layout = next((name for name in layouts if split_file(folder, name, "train")), None)
    if layout is None:
        names = " or ".join(name.format("train") for name in layouts)
        raise UserError(f"The folder {folder} has no {names}: set task.path to the one that does.")
    train, val, test = (_required(folder, layout, name) for name in SPLITS)
    return train, val, test


def split_file(folder: Path, layout: str, name: SplitName) -> Path | None:
    """The file of a split under any of its usual names, in upper or lower case, or None.

    Raises UserError if there are several.
    """
    names = [layout.format(word) for word in PUBLISHED_NAMES[name]]
    files = [file for file in files_in(folder, (Path(layout).suffix,)) if file.lower() in names]
    if len(files) > 1:
        raise UserError(
            f"The folder {folder} has {files[0]} and {files[1]} for {name}: keep one of them there."
        )
    return folder / files[0] if files else None


def consecutive_parts(text: str, val_fraction: float, test_fraction: float) -> dict[SplitName, str]:
    """Divide a text into consecutive train, val and test parts; a part of 0 uses its neighbour's.

    Without a test part, test is validation; without a validation part, validation is test; without
    both they are the training text.
    """
    val_length, test_length = (round(part * len(text)) for part in (val_fraction, test_fraction))
    end = len(text) - test_length
    train, val, test = text[: end - val_length], text[end - val_length : end], text[end:]
    return {"train": train, "val": val or test or train, "test": test or val or train}


def check_held_out(val_fraction: float, test_fraction: float) -> None:
    """Raise UserError unless both are fractions that together leave something to train on."""
    check_fraction("val_fraction", val_fraction)
    check_fraction("test_fraction", test_fraction)
    check_fraction("val_fraction + task.test_fraction", val_fraction + test_fraction)


def stamp(files: Sequence[Path]) -> Stamp:
    """A value that changes when one of the files does; raises UserError if one is missing."""
    try:
        states = [file.stat() for file in files]
    except OSError as error:
        raise UserError(f"The text {error.filename} cannot be read ({error.strerror}).") from error
    return tuple((state.st_mtime_ns, state.st_size) for state in states)


def _required(folder: Path, layout: str, name: SplitName) -> Path:
    file = split_file(folder, layout, name)
    if file is None:
        missing = layout.format(PUBLISHED_NAMES[name][0])
        raise UserError(f"The folder {folder} has no {missing}: put the file of that split there.")
    return file
