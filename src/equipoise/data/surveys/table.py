"""Columns of a csv or parquet file as the values of people; a csv file may have any encoding."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import UserError, refuse_above
from equipoise.errors.sizes import bounded_bytes, check_parquet, check_width

if TYPE_CHECKING:
    import pyarrow


SHOWN = 8
LONGEST = 40  # characters of an entry that is shown
MOST_AT_ONCE = 2**31 - 1  # bytes of a block of pyarrow
MARKS = {  # longer ones first: that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
MARK = "\ufeff"


class Table(NamedTuple):
    """The columns of a file, and how to refer to the place of a row."""

    columns: pyarrow.Table
    place: Callable[[int], str]


class Row(NamedTuple):
    """The line on which a row ends, counted from 1, and its fields."""

    line: int
    fields: list[str]


def read_columns(
    path: str, columns: Sequence[str] | None, encoding: str | None = None
) -> dict[str, NDArray]:
    """The named columns as arrays of numbers, without missing entries.

    columns: None if the file has only one; encoding: of a csv file, None: by its byte order mark,
    else UTF-8. Raises UserError if the file or a column does not exist or a name occurs twice, if
    an entry is missing or not a number, and if the file has no rows.
    """
    table, place = read_table(path, encoding)
    names = table.column_names
    if columns is None and len(names) == 1:
        columns = [_name_of_the_only_one(path, names[0])]
    existing = _listed(names)
    if not columns:
        raise UserError(f"{path} has the columns {existing}: choose with task.columns=[...]")
    if len(set(columns)) < len(columns):
        raise UserError(f"task.columns names {_twice(columns)} twice: name each column once")
    for name in columns:
        if name not in names:
            raise UserError(f"{path} has no column '{name}', only {existing}: set task.columns")
        if names.count(name) > 1:
            raise UserError(
                f"{path} has {names.count(name)} columns named '{name}' in its first line: "
                "give each a name of its own"
            )
    if table.num_rows == 0:
        raise UserError(f"{path} has no rows: each row must be a person")
    return {name: _numbers(table.column(name), name, place) for name in columns}


def read_table(path: str, encoding: str | None = None) -> Table:
    """The whole file. Raises UserError if it is missing, of another kind, or damaged."""
    import pyarrow

    file = Path(os.path.expanduser(path))  # Path's own raises for the home of an unknown user
    if file.is_dir():
        raise UserError(f"{path} is a folder: set task.path to a csv or parquet file in it")
    if not file.is_file():
        raise UserError(f"There is no file {path}: set task.path to a csv or parquet file")
    kind = file.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise UserError(f"task.path={path} must end in .csv or .parquet")
    if encoding is not None and kind != ".csv":
        raise UserError(f"task.encoding is for csv files, and {path} is not one: leave it out")
    try:
        if kind == ".parquet":
            return _parquet(file)
        return _read_csv(path, bounded_bytes(file, "text_bytes"), encoding)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path} cannot be read: {reason}") from error


def _parquet(file: Path) -> Table:
    import pyarrow.parquet

    check_parquet(file)
    kinds = pyarrow.parquet.read_schema(file)
    texts = [c.name for c in kinds if pyarrow.types.is_string(c.type)]  # may repeat a long one
    table = pyarrow.parquet.read_table(file, read_dictionary=texts)
    return Table(table, lambda row: f"row {row + 1} of {file.name}")


def _read_csv(path: str, data: bytes, encoding: str | None) -> Table:
    """Read by pyarrow; text that it rejects is checked line by line to locate the fault."""
    import pyarrow

    text = decoded(path, data, encoding)
    if text.count('"') % 2:  # an open quote would swallow the people behind it
        check_rows(path, text)
    encoded = text.encode()
    check_width(io.BytesIO(encoded), path)
    try:
        table = _parsed(encoded, 1 << 20)
    except pyarrow.ArrowInvalid:
        check_rows(path, text)
        table = _parsed(encoded, min(len(encoded) + 1, MOST_AT_ONCE))  # fields above a megabyte
    return Table(table, lambda row: f"line {line_of(text, row)} of {Path(path).name}")


def _parsed(data: bytes, block: int) -> pyarrow.Table:
    import pyarrow
    import pyarrow.csv

    return pyarrow.csv.read_csv(
        pyarrow.BufferReader(data),
        read_options=pyarrow.csv.ReadOptions(block_size=block),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=b'"' in data),
    )


def _numbers(column: pyarrow.ChunkedArray, name: str, place: Callable[[int], str]) -> NDArray:
    """Raise UserError if an entry is missing or not a number."""
    import pyarrow

    kind = column.type
    if column.null_count:
        raise _missing(column.is_null().to_numpy(), name, place)
    if pyarrow.types.is_boolean(kind):
        return column.to_numpy().astype(np.int64)
    if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)):
        entries = enumerate(entry.as_py() for entry in column)
        row = next((i for i, x in entries if not _is_number(x)), 0)
        raise UserError(
            f"Column '{name}' must hold integers, but it holds '{_shown(column[row])}' in "
            f"{place(row)}: map each of its values to a number first"
        )
    numbers = column.to_numpy()
    if pyarrow.types.is_floating(kind) and not np.isfinite(numbers).all():
        raise _missing(~np.isfinite(numbers), name, place)
    return np.asarray(numbers)


def _missing(holes: NDArray[np.bool_], name: str, place: Callable[[int], str]) -> UserError:
    return UserError(
        f"Column '{name}' has {int(holes.sum())} missing or infinite value(s), the first in "
        f"{place(int(holes.argmax()))}: drop such rows, or give them a value"
    )


def _name_of_the_only_one(path: str, name: str) -> str:
    """Raises UserError for a name that is a number: a person would be lost."""
    if _is_number(name):
        raise UserError(
            f"{path} begins with '{_shown(name)}': its first line must name the column; if that "
            f"is the name, say so with task.columns=[{_shown(name)}]"
        )
    return name


def _is_number(entry: object) -> bool:
    try:
        float(str(entry))
    except ValueError:
        return False
    return True


def _shown(entry: object) -> str:
    """On one line, and short enough for a sentence."""
    text = " ".join(str(entry).split())
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def _twice(columns: Sequence[str]) -> str:
    return next(name for number, name in enumerate(columns) if name in columns[:number])


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(_shown(name) for name in names[:SHOWN]) + rest


def decoded(path: str, data: bytes, encoding: str | None) -> str:
    """The text of a file: in `encoding`, else as its byte order mark says, else in UTF-8.

    Raises UserError, with the line, for bytes that are not valid text and for NUL characters; and
    for an empty file.
    """
    named = encoding or next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    try:
        text = data.decode(named or "utf-8").removeprefix(MARK)
    except UnicodeError as error:
        line = 1 + data[: getattr(error, "start", 0)].count(b"\n")
        raise UserError(
            f"{path}, line {line}: this is not text in {named or 'UTF-8'}: save the file as UTF-8, "
            "or name its encoding, such as task.encoding=latin-1 or task.encoding=utf-16"
        ) from error
    except (LookupError, ValueError) as error:
        raise UserError(
            f"task.encoding={encoding!r} is not an encoding: use e.g. utf-8, latin-1 or utf-16"
        ) from error
    if "\0" in text:
        raise UserError(
            f"{path}, line {_line(text, text.index(chr(0)))} holds a NUL character: save the file "
            "as UTF-8, or name its encoding, such as task.encoding=utf-16-le"
        )
    if not text.strip():
        raise UserError(
            f"{path} is empty: its first line must name the columns, and each further line must "
            "be a person"
        )
    return text


def rows(text: str) -> Iterator[Row]:
    """The rows that are not empty, the header first; raises csv.Error for an unclosed quote."""
    with _fields_of_any_length(len(text)):
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        for fields in reader:
            if fields:
                yield Row(reader.line_num, fields)


def check_rows(path: str, text: str) -> None:
    """Raise UserError for a row with more or fewer fields than the header, or an unclosed quote."""
    width, reached = 0, 0
    for line in io.StringIO(text):
        refuse_above("table_columns", line.count(",") + 1, f"a line of {path} has up to")
    try:
        for row in rows(text):
            width, reached = width or len(row.fields), row.line
            if len(row.fields) != width:
                raise UserError(
                    f"{path}, line {row.line} has {len(row.fields)} field(s) where the first line "
                    f"has {width}: give each person a value in every column, and put quotes around "
                    "values that hold a comma"
                )
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reached + 1}: a quote is not closed, or something follows it ({error}):"
            " put quotes around whole values only"
        ) from error


def line_of(text: str, index: int) -> int:
    """The line of the row of data `index`, counted from 0 after the header."""
    return next(row.line for number, row in enumerate(rows(text)) if number == index + 1)


def _line(text: str, position: int) -> int:
    return 1 + text.count("\n", 0, position)


@contextmanager
def _fields_of_any_length(length: int) -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters per field."""
    before = csv.field_size_limit(max(length, 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
