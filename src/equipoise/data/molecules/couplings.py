"""Pairs of atoms and the couplings between them, read and checked."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from equipoise.data.molecules.tables import (
    CONTRIBUTIONS,
    REAL,
    TEXT,
    TYPES,
    WHOLE,
    Structures,
    places_of,
    read_table,
    real_column,
    refuse,
    whole_column,
)

COUPLING = "scalar_coupling_constant"
STRONGEST = 100_000
"""Hz; no two nuclei couple more strongly, and such a number would dominate a loss."""
DIFFERENT = 0.01
"""The largest error of the contributions' sum, in Hz and relative to the coupling: rounding."""
PAIRS = {"molecule_name": TEXT, "atom_index_0": WHOLE, "atom_index_1": WHOLE, "type": TEXT}


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


def read_couplings(file: Path, structures: Structures, *, labelled: bool) -> Couplings:
    """Read `id, molecule_name, atom_index_0, atom_index_1, type, scalar_coupling_constant`.

    labelled: whether the last column is read. Raises UserError if the file cannot be read, or a row
    does not name a pair of atoms, repeats one (in either order), has a type that its elements
    contradict, or has no coupling.
    """
    columns = {"id": WHOLE, **PAIRS, **({COUPLING: REAL} if labelled else {})}
    table = read_table(file, columns)
    ids = whole_column(file, table, "id")
    _refuse_repeated(file, ids)
    molecules, atoms = _pairs(file, table, structures, ids)
    types = _types(file, table, structures, molecules, atoms, ids)
    values = real_column(table[COUPLING])[:, None] if labelled else None
    if values is not None:
        for row in np.flatnonzero(~(np.abs(values[:, 0]) <= STRONGEST))[:1]:
            refuse(
                file,
                f"id {ids[row]} has no {COUPLING} within {STRONGEST:,} Hz: correct the row, or "
                "delete it",
            )
    return Couplings(molecules, atoms, types, ids, values)


def with_contributions(couplings: Couplings, file: Path, structures: Structures) -> Couplings:
    """The couplings with their four contributions, of `molecule_name, ..., fc, sd, pso, dso`.

    Raises UserError if the file cannot be read, or lacks the contributions of a coupling.
    """
    table = read_table(file, {**PAIRS, **dict.fromkeys(CONTRIBUTIONS, REAL)})
    molecules, atoms = _pairs(file, table, structures, np.arange(1, 1 + len(table)), "row")
    parts = np.stack([real_column(table[name]) for name in CONTRIBUTIONS], axis=1)
    keys, wanted = (
        _keys(structures, *pairs)
        for pairs in ((molecules, atoms), (couplings.molecules, couplings.atoms))
    )
    order = keys.argsort()
    places = order[np.searchsorted(keys, wanted, sorter=order).clip(max=len(keys) - 1)]
    usable = (keys[places] == wanted) & (np.abs(parts[places]) <= STRONGEST).all(axis=1)
    for row in np.flatnonzero(~usable)[:1]:
        refuse(
            file,
            f"the coupling of id {couplings.ids[row]} has no {', '.join(CONTRIBUTIONS)} within "
            f"{STRONGEST:,} Hz: complete the file, or set task.contributions=false",
        )
    assert couplings.values is not None
    values = np.concatenate([couplings.values, parts[places]], axis=1)
    off = np.abs(values[:, 1:].sum(axis=1) - values[:, 0]) > DIFFERENT * (1 + np.abs(values[:, 0]))
    if off.any():
        warnings.warn(
            f"{file}: the contributions of {int(off.sum()):,} of {len(off):,} couplings do not add "
            f"up to them, first those of id {couplings.ids[off.argmax()]}",
            stacklevel=2,
        )
    return Couplings(couplings.molecules, couplings.atoms, couplings.types, couplings.ids, values)


def of_coupled_molecules(
    structures: Structures, couplings: Couplings
) -> tuple[Structures, Couplings]:
    """The molecules that have pairs, and the pairs sorted by molecule."""
    order = couplings.molecules.argsort(kind="stable")
    found, places = np.unique(couplings.molecules[order], return_inverse=True)
    return structures.at(found), replace(couplings.at(order), molecules=places)


def _refuse_repeated(file: Path, ids: NDArray[np.int64]) -> None:
    found, counts = np.unique(ids, return_counts=True)
    for repeated in found[counts > 1][:1]:
        refuse(file, f"id {repeated} is there twice: give each row an id of its own")


def _keys(
    structures: Structures, molecules: NDArray[np.int64], atoms: NDArray[np.int64]
) -> NDArray[np.int64]:
    """A number for each pair of atoms of all molecules, the same in both orders."""
    rows = structures.starts[molecules][:, None] + np.sort(atoms, axis=1)
    return rows[:, 0] * structures.starts[-1] + rows[:, 1]


def _pairs(
    file: Path, table: pa.Table, structures: Structures, ids: NDArray[Any], word: str = "id"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Molecule (C,) and atoms (C, 2) of each row. Raises UserError if they are not a pair."""
    names, codes = places_of(table["molecule_name"])
    places = {name: place for place, name in enumerate(structures.names)}
    for name in names:
        if name not in places:
            refuse(file, f"{name} is not among the structures: add its atoms there")
    molecules = np.array([places[name] for name in names], dtype=np.int64)[codes]
    atoms = np.stack([whole_column(file, table, f"atom_index_{end}") for end in (0, 1)], axis=1)
    sizes = np.diff(structures.starts)[molecules]
    outside = ((atoms < 0) | (atoms >= sizes[:, None])).any(axis=1)
    for row in np.flatnonzero(outside | (atoms[:, 0] == atoms[:, 1]))[:1]:
        name, (first, second) = structures.names[molecules[row]], atoms[row]
        refuse(
            file,
            f"{word} {ids[row]} names atoms {first} and {second} of {name}, which has "
            f"{sizes[row]}, from 0: give two different ones of them",
        )
    keys = _keys(structures, molecules, atoms)
    order = keys.argsort(kind="stable")
    for place in np.flatnonzero(np.diff(keys[order]) == 0)[:1]:
        first, second = ids[order[place]], ids[order[place + 1]]
        refuse(file, f"{word}s {first} and {second} are the same pair of atoms: delete one")
    return molecules, atoms


def _types(
    file: Path,
    table: pa.Table,
    structures: Structures,
    molecules: NDArray[np.int64],
    atoms: NDArray[np.int64],
    ids: NDArray[np.int64],
) -> NDArray[np.int64]:
    """1 + the place of each row's type. Raises UserError if it is unknown or of other elements."""
    names, codes = places_of(table["type"])
    for name in names:
        if name not in TYPES:
            refuse(file, f"{name!r} is no known type: give one of {', '.join(TYPES)}")
    found = structures.symbols[structures.starts[molecules][:, None] + atoms]
    wanted = np.array([sorted(name[2:]) for name in names])[codes]
    for row in np.flatnonzero((np.sort(found, axis=1) != wanted).any(axis=1))[:1]:
        elements = " and ".join(found[row])
        refuse(
            file,
            f"id {ids[row]} is {names[codes[row]]} between {elements} of "
            f"{structures.names[molecules[row]]}: correct its type, or its atoms",
        )
    return np.array([1 + TYPES.index(name) for name in names], dtype=np.int64)[codes]
