"""Which atoms are bonded: triplets, quads and paths of all molecules at once, and their angles.

All arrays are flat over the atoms of many molecules, and row numbers run through all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.data.molecules.couplings import Couplings
from equipoise.data.molecules.tables import TYPES, Structures, ranges

Rows = NDArray[np.int64]
Numbers = NDArray[np.float64]

DEGENERATE = 1e-7
"""A dihedral angle whose planes span less than this (Angstrom^4) is undefined: atoms in a line."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The bonds (E, 2), each in both directions, sorted by (centre, other).

    centre, other: (2E,), atoms. bond: (2E,), the row of the bond. starts: (N + 1,), where the
    neighbours of each atom begin.
    """

    centre: Rows
    other: Rows
    bond: Rows
    starts: Rows

    @staticmethod
    def of(bonds: Rows, atoms: int) -> Neighbours:
        """Those of `atoms` atoms."""
        centre, other = bonds.T.ravel(), bonds[:, ::-1].T.ravel()
        order = np.lexsort((other, centre))
        centre, bond = centre[order], np.tile(np.arange(len(bonds)), 2)[order]
        return Neighbours(centre, other[order], bond, np.searchsorted(centre, np.arange(atoms + 1)))

    @property
    def degrees(self) -> Rows:
        """How many neighbours each atom has."""
        return np.diff(self.starts)


class Triplets(NamedTuple):
    """Two neighbours of an atom: rows of `Neighbours`, the first before the second, sorted."""

    first: Rows
    second: Rows
    starts: Rows
    """Where those of each atom begin (N + 1,)."""


class Paths(NamedTuple):
    """Three bonds in a row: a bond, and at each end a further one.

    bond: (Q,), the row of the middle one in `Neighbours`, from the lower atom. first, second: (Q,),
    rows of `Neighbours`: from its atoms outwards. In a ring of three, both end at the same atom.
    """

    bond: Rows
    first: Rows
    second: Rows

    def at(self, rows: NDArray) -> Paths:
        """Some of them."""
        return Paths(self.bond[rows], self.first[rows], self.second[rows])


def triplets_of(neighbours: Neighbours) -> Triplets:
    """All triplets, sorted by centre, first and second atom."""
    later = neighbours.starts[neighbours.centre + 1] - np.arange(len(neighbours.centre)) - 1
    first = np.repeat(np.arange(len(later)), later)
    second = ranges(np.arange(len(later)) + 1, later)
    degrees = neighbours.degrees
    counts = degrees * (degrees - 1) // 2
    return Triplets(first, second, np.concatenate([[0], counts.cumsum()]))


def triplet_rows(triplets: Triplets, neighbours: Neighbours, one: Rows, other: Rows) -> Rows:
    """The row of the triplet of two rows of `Neighbours` with one centre, in either order."""
    centre = neighbours.centre[one]
    start, degree = neighbours.starts[centre], neighbours.degrees[centre]
    low, high = np.minimum(one, other) - start, np.maximum(one, other) - start
    return triplets.starts[centre] + low * degree - low * (low + 1) // 2 + high - low - 1


def paths_of(neighbours: Neighbours) -> Paths:
    """All paths, sorted by their two middle atoms and then the two outer ones."""
    bonds = np.flatnonzero(neighbours.centre < neighbours.other)
    low, high = neighbours.centre[bonds], neighbours.other[bonds]
    degrees = neighbours.degrees
    counts = degrees[low] * degrees[high]
    number, width = ranges(np.zeros_like(counts), counts), np.repeat(degrees[high], counts)
    first = np.repeat(neighbours.starts[low], counts) + number // np.maximum(width, 1)
    second = np.repeat(neighbours.starts[high], counts) + number % np.maximum(width, 1)
    middle = np.repeat(bonds, counts)
    paths = Paths(middle, first, second)
    returning = neighbours.other[first] == neighbours.other[middle]
    returning |= neighbours.other[second] == neighbours.centre[middle]
    return paths.at(~returning)


def couplings_within_three_bonds(
    structures: Structures, neighbours: Neighbours, paths: Paths
) -> Couplings:
    """Every pair of a hydrogen and a hydrogen, carbon or nitrogen whose type is in `TYPES`.

    The type counts the fewest bonds between the two. The hydrogen comes first; of two, the lower
    one. The ids count the pairs from 0, sorted by molecule and atoms.
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


def bond_angles(vectors: Numbers, others: Numbers) -> Numbers:
    """The angle (n,) in radians between vectors (n, 3) and others (n, 3)."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(others, axis=1)
    cosine = (vectors * others).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    return np.arccos(cosine.clip(-1, 1))


def dihedral_angles(a: Numbers, b: Numbers, c: Numbers) -> tuple[Numbers, NDArray[np.bool_]]:
    """The angle (n,) between the planes of a, b and of b, c, and whether there are two planes.

    a: from the first middle atom to its neighbour, b: to the other middle atom, c: from there to
    its neighbour, each (n, 3). |a x b|^2 = |a|^2 |b|^2 - (a.b)^2 spares the cross products.
    """
    aa, bb, cc, ab, ac, bc = (
        (x * y).sum(axis=1) for x, y in ((a, a), (b, b), (c, c), (a, b), (a, c), (b, c))
    )
    spans = np.sqrt(np.maximum((aa * bb - ab**2) * (cc * bb - bc**2), 0))
    cosine = (bb * ac - ab * bc) / np.where(spans > 0, spans, 1)
    return np.arccos(cosine.clip(-1, 1)), spans >= DEGENERATE


def nearest_angles(positions: Numbers, starts: Rows) -> Numbers:
    """The angle (N,) in radians between the two nearest atoms of each atom, bonded or not.

    0 in a molecule of fewer than three atoms. starts: (M + 1,), where each molecule begins.
    """
    sizes = np.diff(starts)
    of_atom = np.repeat(sizes, sizes)
    centre = np.repeat(np.arange(len(positions)), of_atom)
    other = ranges(np.repeat(starts[:-1], sizes), of_atom)
    centre, other = centre[centre != other], other[centre != other]
    vectors = positions[other] - positions[centre]
    order = np.lexsort((np.linalg.norm(vectors, axis=1), centre))
    first = np.concatenate([[0], (of_atom - 1).cumsum()])[:-1]
    several = of_atom > 2
    one, two = order[first[several]], order[first[several] + 1]
    angles = np.zeros(len(positions))
    angles[several] = bond_angles(vectors[one], vectors[two])
    return angles
