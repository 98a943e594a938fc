"""Columns of a csv or parquet file as the values of people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import UserError

if TYPE_CHECKING:
    import pyarrow

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
SHOWN = 8


def read_columns(path: str, columns: Sequence[str] | None) -> dict[str, NDArray]:
    """The named columns as arrays of numbers, without missing entries.

    columns: None where the file has a single one. Raises UserError where there is no such file or
    column, where an entry is missing or no number, and where the file has no rows.
    """
    table = read_table(path)
    if columns is None and table.num_columns == 1:
        columns = table.column_names
    known = _listed(table.column_names)
    if not columns:
        raise UserError(f"{path} has the columns {known}: choose with task.columns=[...]")
    if len(set(columns)) < len(columns):
        raise UserError(f"task.columns names {_twice(columns)} twice: name each column once")
    for name in columns:
        if name not in table.column_names:
            raise UserError(f"{path} has no column '{name}', only {known}: set task.columns")
    if table.num_rows == 0:
        raise UserError(f"{path} has no rows: each row is to be a person")
    return {name: _numbers(table.column(name), name) for name in columns}


def read_table(path: str) -> pyarrow.Table:
    """The whole file. Raises UserError where it is missing, of another kind, or damaged."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"There is no file {path}: set task.path to a csv or parquet file")
    if file.suffix not in (".csv", ".parquet"):
        raise UserError(f"task.path={path} must end in .csv or .parquet")
    try:
        if file.suffix == ".csv":
            return pyarrow.csv.read_csv(file)
        return pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path} cannot be read: {reason}") from error


def _numbers(column: pyarrow.ChunkedArray, name: str) -> NDArray:
    """Raise UserError where an entry is missing or no number."""
    import pyarrow

    kind = column.type
    if column.null_count:
        raise _missing(column.null_count, name)
    if pyarrow.types.is_boolean(kind):
        return column.to_numpy().astype(np.int64)
    if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)):
        first = next((x for x in column.to_pylist() if not _is_number(x)), column[0].as_py())
        raise UserError(
            f"Column '{name}' must hold integers, but it holds '{first}': give each of its values "
            "a number first"
        )
    numbers = column.to_numpy()
    if pyarrow.types.is_floating(kind) and (holes := int((~np.isfinite(numbers)).sum())):
        raise _missing(holes, name)
    return np.asarray(numbers)


def _missing(count: int, name: str) -> UserError:
    return UserError(
        f"Column '{name}' has {count} missing or infinite value(s): drop such rows, or give them "
        "a value"
    )


def _is_number(entry: object) -> bool:
    try:
        float(str(entry))
    except ValueError:
        return False
    return True


def _twice(columns: Sequence[str]) -> str:
    return next(name for number, name in enumerate(columns) if name in columns[:number])


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
