"""Submissions of couplings, and the true couplings: csv files in the competition's format.

A submission has the columns `id` and `scalar_coupling_constant`, in Hz; the truth has `type` too,
as the competition's train.csv and a run's couplings.csv do. Rows may stand in any order.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute, csv

from equipoise.errors import UserError
from equipoise.errors.sizes import check_csv

COUPLING = "scalar_coupling_constant"
COLUMNS = {"id": pa.int64(), COUPLING: pa.float64()}
OF_TRUTH = {**COLUMNS, "type": pa.string()}
MOLECULE = "molecule_name"
COMPETITION = "dsgdb9nsd_"
"""The prefix of the names of the competition's molecules."""
PART = 2**20
"""Number of errors in a part of their file: 4 MB, which fits a core's cache."""
LARGEST = 1e6
"""Hz; no coupling comes near it, and single precision can sum values below it."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CouplingValues:
    """Couplings by their ids (N,), with values (N,) in Hz; the truth also has their types.

    source: the file they are from. types: their names, sorted. kind: (N,), from 1, numbers of
    `types`; 0 in a submission. competition: whether all are of the competition's molecules.
    """

    source: str
    id: Integers
    value: Floats
    kind: Integers
    types: tuple[str, ...] = ()
    competition: bool = False

    def __len__(self) -> int:
        """Return N."""
        return len(self.id)

    def take(self, rows: Integers) -> CouplingValues:
        """The couplings of these rows, in that order."""
        return replace(self, id=self.id[rows], value=self.value[rows], kind=self.kind[rows])

    def of(self, other: CouplingValues) -> CouplingValues:
        """The couplings that a submission has, with its values, in the order of these.

        Raises UserError where it has ids that these lack.
        """
        self._refuse_missing(np.setdiff1d(other.id, self.id), other.source)
        return replace(self.take(np.flatnonzero(np.isin(self.id, other.id))), source=other.source)

    def _refuse_missing(self, missing: Integers, elsewhere: str) -> None:
        """Raise where another file has ids that this one lacks."""
        if len(missing):
            raise UserError(
                f"{self.source} lacks {len(missing):,} of the ids that {elsewhere} has, such as "
                f"{missing[0]}: all submissions must have the same couplings"
            )

    def places(self, wanted: CouplingValues) -> Integers:
        """The row here of each wanted id. Raises UserError where the ids differ."""
        mine, other = (np.argsort(ids, kind="stable") for ids in (self.id, wanted.id))
        if not np.array_equal(self.id[mine], wanted.id[other]):
            self._refuse_missing(np.setdiff1d(wanted.id, self.id), wanted.source)
            wanted._refuse_missing(np.setdiff1d(self.id, wanted.id), self.source)
        rows = np.empty_like(mine)
        rows[other] = mine
        return rows


def read_truth(path: Path) -> CouplingValues:
    """Read the true couplings with their types, whatever these are called.

    Raises UserError for what is wrong in the file.
    """
    table = _read(path, {**OF_TRUTH, MOLECULE: pa.string()}, needed=OF_TRUTH)
    values = _values(path, table)
    types, kind = _types(table["type"])
    for row in np.flatnonzero(kind == 0)[:1]:
        raise UserError(f"{path} has no type for id {values.id[row]}: name it, or delete the row")
    return replace(values, kind=kind, types=types, competition=_is_public(table))


def _types(column: pa.ChunkedArray) -> tuple[tuple[str, ...], Integers]:
    """The names, sorted, and the number of each row's (N,): from 1, and 0 where it has none."""
    found = compute.unique(column)
    names = [name.strip() for name in found.to_pylist()]
    types = sorted({name for name in names if name})
    number = {"": 0, **{name: place for place, name in enumerate(types, start=1)}}
    numbers = np.array([number[name] for name in names])
    return tuple(types), numbers[compute.index_in(column, found).to_numpy()]


def _is_public(table: pa.Table) -> bool:
    """Whether all molecules have names of the competition."""
    if MOLECULE not in table.column_names:
        return False
    return bool(compute.all(compute.starts_with(table[MOLECULE], COMPETITION)).as_py())


def read_submission(path: Path) -> CouplingValues:
    """Read one submission. Raises UserError for what is wrong in the file.

    More columns than a submission has are refused, since a file with the truth has them.
    """
    table = _read(path, COLUMNS, needed=COLUMNS)
    for extra in (name for name in table.column_names if name not in COLUMNS):
        raise UserError(f"{path} has a column {extra}: a submission has {' and '.join(COLUMNS)}")
    return _values(path, table)


def _read(path: Path, kinds: Mapping[str, pa.DataType], needed: Collection[str]) -> pa.Table:
    """All columns of a csv file, typed as in `kinds`. Raises UserError where it is no csv file."""
    options = csv.ConvertOptions(column_types=dict(kinds), strings_can_be_null=False)
    try:
        check_csv(path)
        table = csv.read_csv(path, convert_options=options)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: correct its name") from error
    except (pa.ArrowException, OSError) as error:
        problem = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read ({problem}): write it again as csv") from error
    for name in kinds:
        count = table.column_names.count(name)
        if count > 1 or (count == 0 and name in needed):
            word = "several" if count else "no"
            raise UserError(f"{path}: the first line has {word} {name}: name each column there")
    if not len(table):
        raise UserError(f"{path}: no row follows the first line, so there is nothing to compare")
    return table


def _values(path: Path, table: pa.Table) -> CouplingValues:
    if table["id"].null_count:
        raise UserError(f"{path} has a row without id: correct it, or delete it")
    ids = table["id"].to_numpy()
    values = compute.fill_null(table[COUPLING], np.nan).to_numpy()
    for row in np.flatnonzero(~(np.abs(values) < LARGEST))[:1]:
        raise UserError(f"{path} has {values[row]:g} for id {ids[row]}: give a coupling in Hz")
    ordered = np.sort(ids)
    for repeated in ordered[1:][ordered[1:] == ordered[:-1]][:1]:
        raise UserError(f"{path} has id {repeated} more than once: give each coupling once")
    return CouplingValues(str(path), ids, values, np.zeros(len(ids), np.int64))


def names_of(files: Sequence[Path]) -> list[str]:
    """A name for each submission: its file's, with folders where two have the same name.

    Raises UserError where a file is given twice.
    """
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise UserError(f"{file} is given twice: give it once")
        seen.add(file.resolve())
    stems = [file.stem for file in files]
    return stems if len(set(stems)) == len(stems) else [str(file) for file in files]


def couplings_of_a_part(submissions: int) -> int:
    """The number of couplings in a part of the file with the errors of `count` submissions."""
    return max(1, PART // submissions)


def store_errors(files: Iterable[Path], count: int, truth: CouplingValues, target: Path) -> None:
    """Write the predictions of `count` submissions minus the truth, in its order, in float32.

    The file is made of parts with the errors (count, n) of n couplings, so that it is read from
    its beginning to its end. Submissions are read and written one by one. Raises UserError for
    one without exactly these couplings, and where the disk is too small.
    """
    needed = 4 * count * len(truth)
    if needed > (free := shutil.disk_usage(target.parent).free):
        raise UserError(
            f"{count} submissions of {len(truth):,} couplings need {needed / 2**30:.1f} GB in "
            f"{target.parent}, where {free / 2**30:.1f} GB are free; choose another folder"
        )
    known, rows = np.empty(0, np.int64), np.empty(0, np.int64)
    width = couplings_of_a_part(count)
    with target.open("wb", buffering=0) as file:
        for place, path in enumerate(files):
            submission = read_submission(path)
            if not np.array_equal(submission.id, known):
                known, rows = submission.id, submission.places(truth)
            errors = (submission.value[rows] - truth.value).astype(np.float32)
            for start in range(0, len(truth), width):
                part = errors[start : start + width]
                file.seek(4 * (count * start + place * len(part)))
                file.write(part.data)


def write_submission(ids: Integers, values: Floats, path: Path) -> None:
    """Write predictions in Hz, in the order of their ids, in the competition's format."""
    order = np.argsort(ids, kind="stable")
    csv.write_csv(pa.table({"id": ids[order], COUPLING: values[order]}), path)
