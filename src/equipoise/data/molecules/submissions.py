"""Submissions of couplings, and the truth about them: csv files as the competition has them.

A submission has the columns `id` and `scalar_coupling_constant`, in Hz; the truth has `type` too,
as the competition's train.csv and a run's couplings.csv do. Rows may stand in any order.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute, csv

from equipoise.data.molecules import TYPES
from equipoise.errors import UserError

ID, VALUE, TYPE, MOLECULE = "id", "scalar_coupling_constant", "type", "molecule_name"
COMPETITION = "dsgdb9nsd_"
"""How the names of the competition's molecules begin."""
LARGEST = 1e6
"""Hz; no coupling is near it, and sums in single precision hold what is below."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Couplings:
    """Couplings by their ids (N,), with values (N,) in Hz; of the truth also kinds (N,), 1 to 8.

    source: the file they are from. competition: whether all are of the competition's molecules.
    """

    source: str
    id: Integers
    value: Floats
    kind: Integers
    competition: bool = False

    def __len__(self) -> int:
        """Return N."""
        return len(self.id)

    def take(self, rows: Integers) -> Couplings:
        """Some of them, in that order."""
        return replace(self, id=self.id[rows], value=self.value[rows], kind=self.kind[rows])

    def of(self, other: Couplings) -> Couplings:
        """Those that a submission has, as its couplings, in the order of these.

        Raises UserError where it has ids that these lack.
        """
        self._refuse_missing(np.setdiff1d(other.id, self.id), other.source)
        return replace(self.take(np.flatnonzero(np.isin(self.id, other.id))), source=other.source)

    def _refuse_missing(self, missing: Integers, elsewhere: str) -> None:
        """Raise where another file has ids that this one lacks."""
        if len(missing):
            raise UserError(
                f"{self.source} lacks {len(missing):,} ids that {elsewhere} has, such as "
                f"{missing[0]}: all of them must be of the same couplings"
            )

    def places(self, wanted: Couplings) -> Integers:
        """The row here of each id that is wanted. Raises UserError where the ids differ."""
        order = np.argsort(self.id, kind="stable")
        found = np.searchsorted(self.id, wanted.id, sorter=order).clip(max=len(self) - 1)
        rows: Integers = order[found]
        if len(self) != len(wanted) or not np.array_equal(self.id[rows], wanted.id):
            self._refuse_missing(np.setdiff1d(wanted.id, self.id), wanted.source)
            wanted._refuse_missing(np.setdiff1d(self.id, wanted.id), self.source)
        return rows


def read_truth(path: Path) -> Couplings:
    """Read the true couplings with their types. Raises UserError for what is wrong in the file."""
    table = _read(path, (ID, TYPE, VALUE), {TYPE: pa.string()})
    names = table.column(TYPE).combine_chunks()
    kinds = compute.fill_null(compute.index_in(names, pa.array(TYPES)), -1).to_numpy() + 1
    if (unknown := np.flatnonzero(kinds == 0)).size:
        raise UserError(
            f"{path} has the type {names[int(unknown[0])]}; types are {', '.join(TYPES)}"
        )
    return replace(
        _couplings(path, table), kind=kinds.astype(np.int64), competition=_is_public(table)
    )


def _is_public(table: pa.Table) -> bool:
    """Whether the file names molecules, all of them as the competition does."""
    if MOLECULE not in table.column_names:
        return False
    names = table.column(MOLECULE).cast(pa.string())
    return bool(compute.all(compute.starts_with(names, COMPETITION)).as_py())


def read_submission(path: Path) -> Couplings:
    """Read one submission. Raises UserError for what is wrong in the file."""
    table = _read(path, (ID, VALUE), {})
    if extra := [name for name in table.column_names if name not in (ID, VALUE)]:
        raise UserError(f"{path} has a column {extra[0]}: a submission has {ID} and {VALUE} alone")
    return _couplings(path, table)


def _read(path: Path, columns: Sequence[str], types: dict[str, Any]) -> pa.Table:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}: give a csv file with the columns {', '.join(columns)}")
    options = csv.ConvertOptions(column_types={ID: pa.int64(), VALUE: pa.float64(), **types})
    try:
        table = csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).partition("\n")[0].removesuffix(".")
        raise UserError(f"cannot read {path} as a csv file: {reason}") from error
    for name in columns:
        if table.column_names.count(name) != 1:
            raise UserError(f"{path} lacks a column {name}: it has {', '.join(table.column_names)}")
    if not len(table):
        raise UserError(f"{path} has no rows")
    return table


def _couplings(path: Path, table: pa.Table) -> Couplings:
    if table.column(ID).null_count:
        raise UserError(f"{path} has a row without {ID}")
    ids, values = table.column(ID).to_numpy(), table.column(VALUE).to_numpy()
    wrong = np.flatnonzero(~(np.abs(values) < LARGEST))
    if len(wrong):
        raise UserError(
            f"{path} has {values[wrong[0]]:g} for id {ids[wrong[0]]}, which is no coupling in Hz"
        )
    ordered = np.sort(ids)
    if (again := ordered[1:][ordered[1:] == ordered[:-1]]).size:
        raise UserError(f"{path} has id {again[0]} more than once")
    return Couplings(str(path), ids, values, np.zeros(len(ids), np.int64))


def names_of(files: Sequence[Path]) -> list[str]:
    """A name for each submission: of its file, with the folders where two are called the same.

    Raises UserError where a file is given twice.
    """
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise UserError(f"{file} is given twice")
        seen.add(file.resolve())
    stems = [file.stem for file in files]
    return stems if len(set(stems)) == len(stems) else [str(file) for file in files]


def store_errors(files: Iterable[Path], count: int, truth: Couplings, target: Path) -> None:
    """Write what `count` submissions predict minus the truth, in its order: (count, N) float32.

    Each is read, written and forgotten. Raises UserError for a submission that is not of exactly
    these couplings, and where the disk is too small.
    """
    needed = 4 * count * len(truth)
    if needed > (free := shutil.disk_usage(target.parent).free):
        raise UserError(
            f"{count} submissions of {len(truth):,} couplings need {needed / 2**30:.1f} GB beside "
            f"{target.parent}, where {free / 2**30:.1f} GB are free; choose another folder"
        )
    known, rows = np.empty(0, np.int64), np.empty(0, np.int64)
    with target.open("wb") as file:
        for path in files:
            submission = read_submission(path)
            if not np.array_equal(submission.id, known):
                known, rows = submission.id, submission.places(truth)
            (submission.value[rows] - truth.value).astype(np.float32).tofile(file)


def write_submission(ids: Integers, values: Floats, path: Path) -> None:
    """Write predictions in Hz, in the order of their ids, as the competition takes them."""
    order = np.argsort(ids, kind="stable")
    csv.write_csv(pa.table({ID: ids[order], VALUE: values[order]}), path)
