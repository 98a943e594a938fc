"""From atoms and couplings to graphs: the features of many molecules at once.

They are those of the winners of the CHAMPS competition (Bratholm et al. 2021, A community-powered
search of machine learning strategy space to find NMR property prediction models, doi
10.1371/journal.pone.0253612), but for the partial charges, which RDKit computes here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from equipoise.data.molecules.graphs import Level, MoleculeGraphs
from equipoise.data.molecules.labels import (
    AtomLabels,
    Coded,
    atom_labels,
    pair_labels,
    quad_labels,
    triplet_labels,
)
from equipoise.data.molecules.perception import perceive
from equipoise.data.molecules.tables import TYPES, Couplings, Structures, ranges
from equipoise.data.molecules.topology import (
    Neighbours,
    Paths,
    Rows,
    Triplets,
    bond_angles,
    dihedral_angles,
    nearest_angles,
    paths_of,
    triplet_rows,
    triplets_of,
)


def graphs_of(structures: Structures, couplings: Couplings | None) -> MoleculeGraphs:
    """The graphs of molecules; where no couplings are given, of all pairs whose type is of `TYPES`.

    Raises UserError where rdkit is missing or a symbol is no element.
    """
    perceived = perceive(structures)
    neighbours = Neighbours.of(perceived.bonds, len(structures.symbols))
    labels = atom_labels(structures.symbols, neighbours, perceived.orders)
    paths = paths_of(neighbours)
    if couplings is None:
        couplings = couplings_within_three_bonds(structures, neighbours, paths)
    pairs = _Pairs(structures, couplings, perceived.bonds, perceived.orders)
    items = _Items(structures, neighbours, labels, pairs.of_bonds[neighbours.bond])
    angles = nearest_angles(structures.positions, structures.starts) / np.pi
    atoms = {
        "position": _float(structures.positions),
        "feature": _float(np.stack([angles, perceived.charges], axis=1)),
    }
    return MoleculeGraphs(
        structures.names,
        perceived.by_radii,
        {
            "atom": _level(structures.starts, atoms, labels[:3]),
            "pair": pairs.level(labels),
            "triplet": items.triplet_level(),
            "quad": items.quad_level(paths),
        },
    )


def couplings_within_three_bonds(
    structures: Structures, neighbours: Neighbours, paths: Paths
) -> Couplings:
    """Every pair of a hydrogen and a hydrogen, carbon or nitrogen that is one of `TYPES`.

    The fewest bonds between the two count. The hydrogen comes first, of two the lower. The ids
    count the pairs from 0, sorted by molecule and atoms.
    """
    triplets = triplets_of(neighbours)
    bonds = np.flatnonzero(neighbours.centre < neighbours.other)
    ends = [
        (neighbours.centre[bonds], neighbours.other[bonds]),
        (neighbours.other[triplets.first], neighbours.other[triplets.second]),
        (neighbours.other[paths.first], neighbours.other[paths.second]),
    ]
    low, high = (
        np.concatenate([pick(*pair) for pair in ends]) for pick in (np.minimum, np.maximum)
    )
    counts = np.repeat([1, 2, 3], [len(one) for one, _ in ends])
    _, fewest = np.unique(low * len(structures.symbols) + high, return_index=True)
    low, high, counts = low[fewest], high[fewest], counts[fewest]
    hydrogen = structures.symbols == "H"
    first = np.where(hydrogen[low], low, high)
    second = low + high - first
    names = [f"{n}J{a}{b}" for n, a, b in zip(
        counts, structures.symbols[first], structures.symbols[second], strict=True
    )]  # fmt: skip
    types = np.array([1 + TYPES.index(name) if name in TYPES else 0 for name in names], dtype=int)
    kept = np.flatnonzero((types > 0) & (first != second))
    kept = kept[np.lexsort((second[kept], first[kept]))]
    molecules = np.searchsorted(structures.starts, first[kept], side="right") - 1
    atoms = np.stack([first[kept], second[kept]], axis=1) - structures.starts[molecules][:, None]
    return Couplings(molecules, atoms, types[kept], np.arange(len(kept)))


class _Pairs:
    """All pairs of atoms of each molecule: first in a triangle, then in their published order."""

    def __init__(
        self, structures: Structures, couplings: Couplings, bonds: Rows, orders: NDArray
    ) -> None:
        starts, sizes = structures.starts, np.diff(structures.starts)
        self.atom_starts = starts
        self.starts = np.concatenate([[0], (sizes * (sizes - 1) // 2).cumsum()])
        local = ranges(np.zeros_like(sizes), sizes)
        # where nothing is to be predicted, the greater atom stands first
        self.atoms = np.stack(
            [np.repeat(local, local), ranges(np.zeros_like(local), local)], axis=1
        )
        self.molecule = np.repeat(np.arange(len(sizes)), np.diff(self.starts))
        of_atom = np.repeat(np.arange(len(sizes)), sizes)
        bonded = self._rows(of_atom[bonds[:, 0]], bonds - starts[of_atom[bonds[:, 0]]][:, None])
        self.orders = np.zeros(len(self.atoms))
        self.orders[bonded] = orders
        self._couple(couplings)
        positions = _float(structures.positions)
        first, second = (starts[self.molecule] + end for end in self.atoms.T)
        self.squared_distance = np.square(positions[first] - positions[second]).sum(axis=1)
        self.order = self._published_order()
        places = np.empty_like(self.order)
        places[self.order] = np.arange(len(self.order)) - self.starts[self.molecule]
        self.of_bonds = places[bonded]
        """Where each bond stands among the pairs of its molecule (E,)."""

    def _rows(self, molecules: Rows, atoms: Rows) -> Rows:
        """Where pairs of atoms (n, 2), counted within their molecule, stand in the triangle."""
        high, low = atoms.max(axis=1), atoms.min(axis=1)
        return self.starts[molecules] + high * (high - 1) // 2 + low

    def _couple(self, couplings: Couplings) -> None:
        rows = self._rows(couplings.molecules, couplings.atoms)
        targets = 1 if couplings.values is None else couplings.values.shape[1]
        self.types = np.zeros(len(self.atoms), dtype=np.int64)
        self.ids = np.full(len(self.atoms), -1, dtype=np.int64)
        self.values = np.zeros((len(self.atoms), targets), dtype=np.float32)
        self.atoms[rows] = couplings.atoms
        self.types[rows] = couplings.types
        self.ids[rows] = couplings.ids
        if couplings.values is not None:
            self.values[rows] = couplings.values

    def _published_order(self) -> Rows:
        """By molecule; in it the real pairs by their atoms, then the others by distance."""
        self.real = (self.types > 0) | (self.orders > 0)
        distance = np.where(self.real, 0, self.squared_distance)
        return np.lexsort((self.atoms[:, 1], self.atoms[:, 0], distance, ~self.real, self.molecule))

    def level(self, labels: AtomLabels) -> Level:
        """The pairs, in their published order."""
        rows = self.atoms + self.atom_starts[self.molecule][:, None]
        columns = {
            "atoms": self.atoms.astype(np.int32),
            "squared_distance": self.squared_distance,
            "real": self.real,
            "type": self.types,
            "row": self.ids,
            "coupling": self.values,
        }
        found = pair_labels(labels, rows, self.types, self.orders)
        ordered = [Coded(codes[self.order], names) for codes, names in found]
        return _level(self.starts, {k: v[self.order] for k, v in columns.items()}, ordered)


@dataclass(frozen=True, eq=False)
class _Items:
    """Triplets and quads. pair_of: (2E,), the pair of each row of `neighbours`, in its molecule."""

    structures: Structures
    neighbours: Neighbours
    labels: AtomLabels
    pair_of: Rows

    @cached_property
    def triplets(self) -> Triplets:
        """Of all atoms."""
        return triplets_of(self.neighbours)

    @cached_property
    def vectors(self) -> NDArray[np.float64]:
        """From the centre to the other atom (2E, 3)."""
        positions = self.structures.positions
        return positions[self.neighbours.other] - positions[self.neighbours.centre]

    def triplet_level(self) -> Level:
        """The triplets."""
        first, second, starts = self.triplets
        centre, other = self.neighbours.centre, self.neighbours.other
        columns = {
            "atoms": self._within(centre[first], other[first], other[second]),
            "pairs": _whole(self.pair_of[first], self.pair_of[second]),
            "angle": _float(bond_angles(self.vectors[first], self.vectors[second])),
        }
        labels = triplet_labels(self.labels, self.neighbours, self.triplets)
        return _level(starts[self.structures.starts], columns, labels)

    def quad_level(self, paths: Paths) -> Level:
        """The quads: the paths whose dihedral angle is one."""
        middle, first, second = paths
        angles, spanned = dihedral_angles(
            self.vectors[first], self.vectors[middle], self.vectors[second]
        )
        quads = paths.at(spanned)
        middle, first, second = quads
        centre, other = self.neighbours.centre, self.neighbours.other
        columns = {
            "atoms": self._within(centre[middle], other[middle], other[first], other[second]),
            "pairs": _whole(*(self.pair_of[row] for row in quads)),
            "triplets": _whole(
                self._triplet(middle, first), self._triplet(self.reversed[middle], second)
            ),
            "angle": _float(angles[spanned]),
        }
        starts = np.searchsorted(centre[middle], self.structures.starts)
        return _level(starts, columns, [quad_labels(self.labels, self.neighbours, quads)])

    @cached_property
    def reversed(self) -> Rows:
        """The row of each bond in the other direction (2E,)."""
        return np.lexsort((self.neighbours.centre, self.neighbours.other))

    def _within(self, *atoms: Rows) -> NDArray[np.int32]:
        starts = self.structures.starts
        molecule = np.searchsorted(starts, atoms[0], side="right") - 1
        return _whole(*(end - starts[molecule] for end in atoms))

    def _triplet(self, one: Rows, other: Rows) -> Rows:
        """The triplet of two bonds of one centre, in its molecule."""
        starts = self.structures.starts
        molecule = np.searchsorted(starts, self.neighbours.centre[one], side="right") - 1
        rows = triplet_rows(self.triplets, self.neighbours, one, other)
        return rows - self.triplets.starts[starts[molecule]]


def _level(
    starts: Rows, columns: dict[str, NDArray], labels: tuple[Coded, ...] | list[Coded]
) -> Level:
    codes = np.stack([label.codes for label in labels], axis=1)
    return Level(starts, {"label": codes, **columns}, tuple(label.names for label in labels))


def _whole(*columns: Rows) -> NDArray[np.int32]:
    return np.stack(columns, axis=1).astype(np.int32)


def _float(numbers: NDArray) -> NDArray[np.float32]:
    return numbers.astype(np.float32)
