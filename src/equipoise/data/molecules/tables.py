"""The csv files of molecules and couplings, in the layout of the CHAMPS competition, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from equipoise.errors import UserError

TYPES = ("1JHC", "1JHN", "2JHC", "2JHH", "2JHN", "3JHC", "3JHH", "3JHN")
"""The kinds of coupling: bonds between the two atoms, J, and the elements of both."""
CONTRIBUTIONS = ("fc", "sd", "pso", "dso")
"""Fermi contact, spin dipole, paramagnetic and diamagnetic spin orbit: their sum is the coupling."""
COUPLING = "scalar_coupling_constant"

TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()
STRUCTURES = {
    "molecule_name": TEXT, "atom_index": WHOLE, "atom": TEXT, "x": REAL, "y": REAL, "z": REAL,
}  # fmt: skip
PAIRS = {"molecule_name": TEXT, "atom_index_0": WHOLE, "atom_index_1": WHOLE, "type": TEXT}


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


@dataclass(frozen=True, eq=False)
class Couplings:
    """Pairs of atoms, each once, with or without the coupling between them.

    molecules: int64 (C,), rows of the structures. atoms: int64 (C, 2), within the molecule. types:
    int64 (C,), 1 + the place in `TYPES`. ids: int64 (C,), those of the file. values: float64
    (C, K), Hz: the coupling, and its four contributions if asked for; None for pairs without.
    """

    molecules: NDArray[np.int64]
    atoms: NDArray[np.int64]
    types: NDArray[np.int64]
    ids: NDArray[np.int64]
    values: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.ids)

    def at(self, rows: NDArray[np.int64]) -> Couplings:
        """Some of the pairs, in that order."""
        values = None if self.values is None else self.values[rows]
        return Couplings(
            self.molecules[rows], self.atoms[rows], self.types[rows], self.ids[rows], values
        )


def ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """starts[0], starts[0] + 1, ..., `counts[0]` of them, then those of the next."""
    ends = counts.cumsum()
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + counts, counts)


def read_structures(file: Path) -> Structures:
    """Read `molecule_name, atom_index, atom, x, y, z`.

    Raises UserError where the file cannot be read, an atom is missing or there twice, a position is
    not finite, or two atoms share one.
    """
    table = read_table(file, STRUCTURES)
    names, molecules = _named(table["molecule_name"])
    indices = _whole(file, table, "atom_index")
    positions = np.stack([_real(table[axis]) for axis in "xyz"], axis=1)
    order = np.lexsort((indices, molecules))
    molecules, indices, positions = molecules[order], indices[order], positions[order]
    starts = np.searchsorted(molecules, np.arange(len(names) + 1))
    expected = np.arange(len(molecules)) - starts[molecules]
    for row in np.flatnonzero(indices != expected)[:1]:
        wrong, right = indices[row], expected[row]
        problem = f"has no atom {right}" if wrong > right else f"has atom {wrong} twice"
        _refuse(file, f"{names[molecules[row]]} {problem}: number its atoms from 0, each once")
    for row in np.flatnonzero(~np.isfinite(positions).all(axis=1))[:1]:
        where = f"atom {indices[row]} of {names[molecules[row]]}"
        _refuse(file, f"{where} has no finite position: correct its x, y and z")
    symbols = np.char.strip(np.array(table["atom"].to_pylist(), dtype=np.str_))[order]
    return Structures(tuple(names), starts, np.char.capitalize(symbols), positions)


def read_couplings(file: Path, structures: Structures, *, labelled: bool) -> Couplings:
    """Read `id, molecule_name, atom_index_0, atom_index_1, type, scalar_coupling_constant`.

    labelled: whether the last column is read. Raises UserError where the file cannot be read, or a
    row names no pair of atoms, names one again, in either order, has a type that its elements
    contradict, or has no coupling.
    """
    columns = {"id": WHOLE, **PAIRS, **({COUPLING: REAL} if labelled else {})}
    table = read_table(file, columns)
    ids = _whole(file, table, "id")
    _refuse_repeated(file, ids)
    molecules, atoms = _pairs(file, table, structures, ids)
    types = _types(file, table, structures, molecules, atoms, ids)
    values = _real(table[COUPLING])[:, None] if labelled else None
    if values is not None:
        for row in np.flatnonzero(~np.isfinite(values[:, 0]))[:1]:
            _refuse(file, f"id {ids[row]} has no finite {COUPLING}: correct the row, or delete it")
    return Couplings(molecules, atoms, types, ids, values)


def with_contributions(couplings: Couplings, file: Path, structures: Structures) -> Couplings:
    """The couplings with their four contributions, of `molecule_name, ..., fc, sd, pso, dso`.

    Raises UserError where the file cannot be read, or has none for a coupling.
    """
    table = read_table(file, {**PAIRS, **dict.fromkeys(CONTRIBUTIONS, REAL)})
    molecules, atoms = _pairs(file, table, structures, np.arange(len(table)), "row")
    parts = np.stack([_real(table[name]) for name in CONTRIBUTIONS], axis=1)
    keys, wanted = (
        _keys(structures, *pairs)
        for pairs in ((molecules, atoms), (couplings.molecules, couplings.atoms))
    )
    order = keys.argsort()
    places = order[np.searchsorted(keys, wanted, sorter=order).clip(max=len(keys) - 1)]
    usable = (keys[places] == wanted) & np.isfinite(parts[places]).all(axis=1)
    for row in np.flatnonzero(~usable)[:1]:
        _refuse(
            file,
            f"the coupling of id {couplings.ids[row]} has no finite {', '.join(CONTRIBUTIONS)}: "
            "complete the file, or set task.contributions=false",
        )
    assert couplings.values is not None
    values = np.concatenate([couplings.values, parts[places]], axis=1)
    return Couplings(couplings.molecules, couplings.atoms, couplings.types, couplings.ids, values)


def read_table(file: Path, columns: Mapping[str, pa.DataType]) -> pa.Table:
    """Some columns of a csv file. Raises UserError where it cannot be read, lacks one, or is empty."""
    options = csv.ConvertOptions(column_types=dict(columns), strings_can_be_null=False)
    try:
        table = csv.read_csv(file, convert_options=options)
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist: give the path of the file") from error
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} cannot be read ({reason}): correct it, or get it again") from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        _refuse(file, f"has no column {' and no column '.join(missing)}: add it to the first line")
    if not len(table):
        _refuse(file, "has no rows below its first line: get it again")
    return table.select(list(columns)).combine_chunks()


def _named(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """The sorted names in a column, and for each row the place among them."""
    encoded = column.combine_chunks().dictionary_encode()
    found = encoded.dictionary.to_pylist()
    names = sorted(found)
    places = {name: place for place, name in enumerate(names)}
    table = np.array([places[name] for name in found], dtype=np.int64)
    return names, table[encoded.indices.to_numpy(zero_copy_only=False)]


def _whole(file: Path, table: pa.Table, name: str) -> NDArray[np.int64]:
    column = table[name]
    if column.null_count:
        row = np.flatnonzero(column.is_null().to_numpy())[0]
        _refuse(file, f"row {row + 1} has no {name}: correct it, or delete it")
    return column.to_numpy()


def _real(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return pc.fill_null(column, np.nan).to_numpy()


def _refuse(file: Path, sentence: str) -> NoReturn:
    joint = " " if sentence.startswith("has no") else ": "
    raise UserError(f"{file}{joint}{sentence}.")


def _refuse_repeated(file: Path, ids: NDArray[np.int64]) -> None:
    found, counts = np.unique(ids, return_counts=True)
    for repeated in found[counts > 1][:1]:
        _refuse(file, f"id {repeated} is there twice: give each row an id of its own")


def _keys(
    structures: Structures, molecules: NDArray[np.int64], atoms: NDArray[np.int64]
) -> NDArray[np.int64]:
    """A number for each pair of atoms of all molecules, the same in both orders."""
    rows = structures.starts[molecules][:, None] + np.sort(atoms, axis=1)
    return rows[:, 0] * structures.starts[-1] + rows[:, 1]


def _pairs(
    file: Path, table: pa.Table, structures: Structures, ids: NDArray[Any], word: str = "id"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Molecule (C,) and atoms (C, 2) of each row. Raises UserError where they are no pair."""
    names, codes = _named(table["molecule_name"])
    places = {name: place for place, name in enumerate(structures.names)}
    for name in names:
        if name not in places:
            _refuse(file, f"{name} is not among the structures: add its atoms there")
    molecules = np.array([places[name] for name in names], dtype=np.int64)[codes]
    atoms = np.stack([_whole(file, table, f"atom_index_{end}") for end in (0, 1)], axis=1)
    sizes = np.diff(structures.starts)[molecules]
    outside = ((atoms < 0) | (atoms >= sizes[:, None])).any(axis=1)
    for row in np.flatnonzero(outside | (atoms[:, 0] == atoms[:, 1]))[:1]:
        name, (first, second) = structures.names[molecules[row]], atoms[row]
        _refuse(
            file,
            f"{word} {ids[row]} names atoms {first} and {second} of {name}, which has "
            f"{sizes[row]}, from 0: give two different ones of them",
        )
    keys = _keys(structures, molecules, atoms)
    order = keys.argsort(kind="stable")
    for place in np.flatnonzero(np.diff(keys[order]) == 0)[:1]:
        first, second = ids[order[place]], ids[order[place + 1]]
        _refuse(file, f"{word}s {first} and {second} are the same pair of atoms: delete one")
    return molecules, atoms


def _types(
    file: Path,
    table: pa.Table,
    structures: Structures,
    molecules: NDArray[np.int64],
    atoms: NDArray[np.int64],
    ids: NDArray[np.int64],
) -> NDArray[np.int64]:
    """1 + the place of each row's type. Raises UserError where it is none, or of other elements."""
    names, codes = _named(table["type"])
    for name in names:
        if name not in TYPES:
            _refuse(file, f"{name!r} is no known type: give one of {', '.join(TYPES)}")
    found = structures.symbols[structures.starts[molecules][:, None] + atoms]
    wanted = np.array([sorted(name[2:]) for name in names])[codes]
    for row in np.flatnonzero((np.sort(found, axis=1) != wanted).any(axis=1))[:1]:
        elements = " and ".join(found[row])
        _refuse(
            file,
            f"id {ids[row]} is {names[codes[row]]} between {elements} of "
            f"{structures.names[molecules[row]]}: correct its type, or its atoms",
        )
    return np.array([1 + TYPES.index(name) for name in names], dtype=np.int64)[codes]
