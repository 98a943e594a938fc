"""The csv files of molecules and couplings, in the layout of the CHAMPS competition, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from equipoise.errors import UserError
from equipoise.errors.sizes import check_csv

FARTHEST = 10_000
"""Angstrom from the origin; no molecule is so large, and squares of much more would overflow."""
TYPES = ("1JHC", "1JHN", "2JHC", "2JHH", "2JHN", "3JHC", "3JHH", "3JHN")
"""The kinds of coupling: bonds between the two atoms, J, and the elements of both."""
CONTRIBUTIONS = ("fc", "sd", "pso", "dso")
"""Fermi contact, spin dipole, para- and diamagnetic spin orbit: their sum is the coupling."""

TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()
STRUCTURES = {
    "molecule_name": TEXT, "atom_index": WHOLE, "atom": TEXT, "x": REAL, "y": REAL, "z": REAL,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Structures:
    """The atoms of molecules, sorted by the molecules' names.

    names: of the M molecules. starts: int64 (M + 1,), where the atoms of each begin. symbols: str
    (N,), elements. positions: float64 (N, 3), Angstrom.
    """

    names: tuple[str, ...]
    starts: NDArray[np.int64]
    symbols: NDArray[np.str_]
    positions: NDArray[np.float64]

    def at(self, molecules: NDArray[np.int64]) -> Structures:
        """Some of the molecules, in that order."""
        rows = ranges(self.starts[molecules], np.diff(self.starts)[molecules])
        return Structures(
            tuple(self.names[row] for row in molecules),
            np.concatenate([[0], np.diff(self.starts)[molecules].cumsum()]),
            self.symbols[rows],
            self.positions[rows],
        )


def ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """starts[0], starts[0] + 1, ..., `counts[0]` of them, then those of the next."""
    ends = counts.cumsum()
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + counts, counts)


def read_structures(file: Path) -> Structures:
    """Read `molecule_name, atom_index, atom, x, y, z`.

    Raises UserError if the file cannot be read, an atom is missing or listed twice, a position is
    not finite, or two atoms share a position.
    """
    table = read_table(file, STRUCTURES)
    names, molecules = places_of(table["molecule_name"])
    indices = whole_column(file, table, "atom_index")
    positions = np.stack([real_column(table[axis]) for axis in "xyz"], axis=1)
    order = np.lexsort((indices, molecules))
    molecules, indices, positions = molecules[order], indices[order], positions[order]
    starts = np.searchsorted(molecules, np.arange(len(names) + 1))
    expected = np.arange(len(molecules)) - starts[molecules]
    for row in np.flatnonzero(indices != expected)[:1]:
        wrong, right = indices[row], expected[row]
        problem = f"has no atom {right}" if wrong > right else f"has atom {wrong} once too often"
        refuse(file, f"{names[molecules[row]]} {problem}: number its atoms from 0, each once")
    for row in np.flatnonzero(~(np.abs(positions) <= FARTHEST).all(axis=1))[:1]:
        where = f"atom {indices[row]} of {names[molecules[row]]}"
        refuse(
            file,
            f"{where} has no position within {FARTHEST:,} Angstrom: correct its x, y and z",
        )
    _refuse_shared_positions(file, names, molecules, positions)
    symbols = np.char.strip(np.array(table["atom"].to_pylist(), dtype=np.str_))[order]
    return Structures(tuple(names), starts, np.char.capitalize(symbols), positions)


def read_table(file: Path, columns: Mapping[str, pa.DataType]) -> pa.Table:
    """Some columns of a csv file. Raises UserError if it cannot be read or lacks one."""
    options = csv.ConvertOptions(column_types=dict(columns), strings_can_be_null=False)
    try:
        check_csv(file)
        table = csv.read_csv(file, convert_options=options)
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist: give the path of the file") from error
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} cannot be read ({reason}): correct it, or get it again") from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        refuse(
            file,
            f"the first line has no {', '.join(missing)}: name these columns there, with commas "
            "and no spaces between the names",
        )
    if not len(table):
        refuse(file, "no row follows the first line: get it again")
    return table.select(list(columns)).combine_chunks()


def places_of(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """The sorted names in a column, and the index of each row's name among them."""
    encoded = column.combine_chunks().dictionary_encode()
    found = encoded.dictionary.to_pylist()
    names = sorted(found)
    places = {name: place for place, name in enumerate(names)}
    table = np.array([places[name] for name in found], dtype=np.int64)
    return names, table[encoded.indices.to_numpy(zero_copy_only=False)]


def whole_column(file: Path, table: pa.Table, name: str) -> NDArray[np.int64]:
    """A column of whole numbers. Raises UserError if one is missing."""
    column = table[name]
    if column.null_count:
        row = np.flatnonzero(column.is_null().to_numpy())[0]
        refuse(file, f"row {row + 1} has no {name}: correct it, or delete it")
    return column.to_numpy()


def real_column(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column of numbers, nan where one is missing."""
    return pc.fill_null(column, np.nan).to_numpy()


def refuse(file: Path, sentence: str) -> NoReturn:
    """Raise UserError for a fault in a file."""
    raise UserError(f"{file}: {sentence}.")


def _refuse_shared_positions(
    file: Path, names: list[str], molecules: NDArray[np.int64], positions: NDArray[np.float64]
) -> None:
    order = np.lexsort((*positions.T, molecules))
    same = (np.diff(positions[order], axis=0) == 0).all(axis=1) & (np.diff(molecules) == 0)
    for place in np.flatnonzero(same)[:1]:
        first, second = sorted(
            order[place : place + 2] - np.searchsorted(molecules, molecules[order[place]])
        )
        name = names[molecules[order[place]]]
        refuse(file, f"atoms {first} and {second} of {name} lie in one place: correct one of them")
