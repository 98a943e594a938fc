"""Columns and labels of all atoms, pairs, triplets and quads of many molecules."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from equipoise.data.molecules.couplings import Couplings
from equipoise.data.molecules.features.labels import (
    AtomLabels,
    Coded,
    pair_labels,
    quad_labels,
    triplet_labels,
)
from equipoise.data.molecules.features.topology import (
    Neighbours,
    Paths,
    Rows,
    Triplets,
    bond_angles,
    dihedral_angles,
    nearest_angles,
    triplet_rows,
    triplets_of,
)
from equipoise.data.molecules.graphs import Level
from equipoise.data.molecules.tables import Structures, ranges


def atom_level(structures: Structures, charges: NDArray, labels: AtomLabels) -> Level:
    """The atoms; charges: (N,), in elementary charges."""
    angles = nearest_angles(structures.positions, structures.starts) / np.pi
    columns = {
        "position": _float(structures.positions),
        "feature": _float(np.stack([angles, charges], axis=1)),
    }
    return _level(structures.starts, columns, labels[:3])


class Pairs:
    """All pairs of atoms of each molecule: first in a triangle, then in their published order."""

    def __init__(
        self, structures: Structures, couplings: Couplings, bonds: Rows, orders: NDArray
    ) -> None:
        starts, sizes = structures.starts, np.diff(structures.starts)
        self.atom_starts = starts
        self.starts = np.concatenate([[0], (sizes * (sizes - 1) // 2).cumsum()])
        local = ranges(np.zeros_like(sizes), sizes)
        # where nothing is to be predicted, the heavier atom comes first
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
        """By molecule; within it the real pairs by their atoms, then the others by distance."""
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
class Items:
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
        """Vectors from the centre to the other atom (2E, 3)."""
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
        """The quads: the paths that have a dihedral angle."""
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
