"""The text of a csv file, whatever its encoding, and where in it something stands."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from equipoise.errors import UserError

MARKS = {  # the longer ones first: that of UTF-32 begins as that of UTF-16 does
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
MARK = "\ufeff"


class Row(NamedTuple):
    """The line on which a row ends, counted from 1, and its fields."""

    line: int
    fields: list[str]


def decoded(path: str, data: bytes, encoding: str | None) -> str:
    """The text of a file: in `encoding`, else as its byte order mark says, else in UTF-8.

    Raises UserError, with the line, for bytes that are no such text and for NUL characters; and
    for an empty file.
    """
    named = encoding or next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    try:
        text = data.decode(named or "utf-8").removeprefix(MARK)
    except UnicodeError as error:
        line = 1 + data[: getattr(error, "start", 0)].count(b"\n")
        raise UserError(
            f"{path}, line {line}: this is no text in {named or 'UTF-8'}: save the file as UTF-8, "
            "or name its encoding, such as task.encoding=latin-1 or task.encoding=utf-16"
        ) from error
    except (LookupError, ValueError) as error:
        raise UserError(
            f"task.encoding={encoding!r} is no encoding: take one such as utf-8, latin-1 or utf-16"
        ) from error
    if "\0" in text:
        raise UserError(
            f"{path}, line {_line(text, text.index(chr(0)))} holds a NUL character: save the file "
            "as UTF-8, or name its encoding, such as task.encoding=utf-16-le"
        )
    if not text.strip():
        raise UserError(
            f"{path} is empty: its first line is to name the columns, and each further line is to "
            "be a person"
        )
    return text


def rows(text: str) -> Iterator[Row]:
    """The rows that hold something, the header first; raises csv.Error for a quote left open."""
    with _fields_of_any_length(len(text)):
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        for fields in reader:
            if fields:
                yield Row(reader.line_num, fields)


def check_rows(path: str, text: str) -> None:
    """Raise UserError for a row with more or fewer fields than the header, and an open quote."""
    width, reached = 0, 0
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
            " put quotes around whole values alone"
        ) from error


def line_of(text: str, index: int) -> int:
    """The line of the row of data `index`, counted from 0 after the header."""
    return next(row.line for number, row in enumerate(rows(text)) if number == index + 1)


def _line(text: str, position: int) -> int:
    return 1 + text.count("\n", 0, position)


@contextmanager
def _fields_of_any_length(length: int) -> Iterator[None]:
    """The csv module refuses fields above 131,072 characters otherwise."""
    before = csv.field_size_limit(max(length, 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
