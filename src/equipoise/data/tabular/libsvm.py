"""Files in libsvm's format, `<label> <index>:<value> ...` a line, and which line is broken."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.datasets import load_svmlight_files
from tqdm import tqdm

from equipoise.data.folders import expanded
from equipoise.data.tabular.tables import with_short_indices
from equipoise.errors import TooLarge, UserError
from equipoise.errors.sizes import bounded_lines

PROGRESS_AFTER_SECONDS = 2.0
FORM = "each line must be <label> <index>:<value> <index>:<value> ..., with ascending indices"
SHOWN = 40  # characters of what is wrong
MOST_COLUMNS = 100_000_000
GREATEST = 1e100  # of a value; the square of a greater one may be no number any more
A_NUMBER = f"a number of at most {GREATEST:g} in size"
COMMENT = b"#"
INTEGER = re.compile(rb"[+-]?\d+")
NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
SUSPICIOUS = (b"n", b"N", b"_")  # found in nan, inf and infinity, and in 1_000
OPEN: dict[str, Callable[..., IO[bytes]]] = {
    ".gz": gzip.open,  # type: ignore[dict-item]
    ".bz2": bz2.open,
    ".xz": lzma.open,
}


class LabelledRows(NamedTuple):
    """features (N, F) float64, dense or sparse by rows; labels (N,) float64 as in the file.

    names: of the classes, starting with that of the lowest label; None: the labels themselves.
    origin: what the rows are called; place: says where a row was read.
    """

    features: NDArray[np.float64] | sparse.csr_array
    labels: NDArray[np.float64]
    names: tuple[str, ...] | None
    origin: str
    place: Callable[[int], str]


def read_libsvm(paths: Sequence[str]) -> list[LabelledRows]:
    """The rows of each file, plain or ending in .gz, .bz2 or .xz, all of the same width.

    Indices count from 1, unless one of the files has an index 0. Raises UserError for a file that
    is missing or holds no values, and for the first broken line of one: a value that is not a
    finite number, or an index that is not an integer greater than the one before it.
    """
    files = [Lines(path) for path in paths]
    try:
        loaded = load_svmlight_files(files, dtype=np.float64, zero_based="auto")
    except TooLarge:
        raise
    except (ValueError, OverflowError) as error:
        broken = next(file for file in files if not file.ended)
        refuse_broken_lines(broken.path)
        raise broken.refusal(broken.number, str(error)) from error
    return [
        _checked(sparse.csr_array(features), labels, file)
        for features, labels, file in zip(loaded[::2], loaded[1::2], files, strict=True)
    ]


class Lines(io.BufferedIOBase):
    """The lines of a file, for a library that iterates over an open file; tracks the position.

    number: of the latest line. rows: the line number of each row, because blank lines and comments
    are not rows. Raises UserError if the file cannot be read, and ValueError for what scikit-learn
    would accept silently: values that are not finite, and Python's 1_000.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.number = 0
        self.rows = array("q")
        self.ended = False
        self._refuse_what_is_no_file()

    def __iter__(self) -> Iterator[bytes]:
        """The lines one after another, with a progress bar if the file takes long."""
        try:
            with self._opened() as file, self._progress() as progress:
                lines = bounded_lines(*file, self.path)
                for self.number, line in enumerate(lines, start=1):
                    self._note(line)
                    progress.update(len(line))
                    yield line
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise UserError(
                f"{self.path} cannot be read beyond line {self.number} ({reason}): give it the "
                "permissions that it needs, or fetch it anew"
            ) from error
        self.ended = True

    def place(self, row: int) -> str:
        """Where a row is in the file."""
        return f"{self.path}, line {self.rows[row]}"

    def refusal(self, line: int, wrong: str) -> UserError:
        """The error that names a line."""
        return UserError(f"{self.path}, line {line}: {wrong}; {FORM}")

    def _note(self, line: bytes) -> None:
        if any(mark in line for mark in SUSPICIOUS) and (wrong := fault(line)):
            raise ValueError(wrong)
        if line.lstrip()[:1] not in (b"", COMMENT):
            self.rows.append(self.number)

    def _refuse_what_is_no_file(self) -> None:
        file = expanded(self.path)
        if not file.is_file():
            what = "is a folder" if file.is_dir() else "does not exist"
            raise UserError(f"{self.path} {what}: name a file in libsvm's format.")

    @contextmanager
    def _opened(self) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """The file, unpacked, and the raw file beneath it."""
        file = expanded(self.path)
        with file.open("rb") as raw:
            unpack = OPEN.get(file.suffix.lower())
            yield (raw if unpack is None else unpack(raw)), raw

    def _progress(self) -> tqdm[Any]:
        packed = Path(self.path).suffix.lower() in OPEN
        size = None if packed else expanded(self.path).stat().st_size
        return tqdm(
            total=size, desc=f"Reading {Path(self.path).name}", unit="B", unit_scale=True,
            delay=PROGRESS_AFTER_SECONDS, leave=False,
        )  # fmt: skip


def refuse_broken_lines(path: str) -> None:
    """Raise UserError for the first broken line; takes about ten times as long as reading."""
    lines = Lines(path)
    try:
        for line in lines:
            if wrong := fault(line):
                raise ValueError(wrong)
    except TooLarge:
        raise
    except ValueError as error:
        raise lines.refusal(lines.number, str(error)) from error


def fault(line: bytes) -> str | None:
    """What is wrong with a line; None if nothing is."""
    label, *pairs = line.partition(COMMENT)[0].split() or [b"0"]
    if not _is_finite(label):
        return f"its label {_shown(label)} is not {A_NUMBER}"
    if pairs and pairs[0].startswith(b"qid:"):  # used for rankings; it is not a feature
        del pairs[0]
    before = -1
    for pair in pairs:
        index, colon, value = pair.partition(b":")
        if not (colon and INTEGER.fullmatch(index)):
            return f"{_shown(pair)} does not begin with an integer and a colon"
        if not _is_finite(value):
            return f"the value of {_shown(pair)} is not {A_NUMBER}"
        if not before < int(index) <= MOST_COLUMNS:
            least = "at least 0" if before < 0 else f"above {before}, the one before it"
            return f"the index of {_shown(pair)} must be {least}, and at most {MOST_COLUMNS:,}"
        before = int(index)
    return None


def _is_finite(number: bytes) -> bool:
    return NUMBER.fullmatch(number) is not None and abs(float(number)) <= GREATEST


def _shown(entry: bytes) -> str:
    text = ascii(entry.decode("utf-8", "backslashreplace"))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}...'"


def _checked(features: sparse.csr_array, labels: NDArray[np.float64], file: Lines) -> LabelledRows:
    """Raise UserError for faults that only the whole file reveals."""
    features.eliminate_zeros()
    if not len(labels) or not features.nnz:
        lacks = "rows" if not len(labels) else "values beside its labels"
        raise UserError(f"{file.path} has no {lacks}: {FORM}")
    greatest = np.abs(features.data).max(), np.abs(labels).max()
    if max(greatest) > GREATEST or features.shape[1] > MOST_COLUMNS:
        refuse_broken_lines(file.path)
    return LabelledRows(with_short_indices(features), labels, None, file.path, file.place)
