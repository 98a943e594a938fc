"""Triplets, quads and their angles beside what loops over the atoms give, for random molecules."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from equipoise.data.molecules.features.topology import (
    Neighbours,
    bond_angles,
    dihedral_angles,
    nearest_angles,
    paths_of,
    triplet_rows,
    triplets_of,
)

ATOMS = 7
PAIRS = list(combinations(range(ATOMS), 2))


@st.composite
def bonds(draw: st.DrawFn) -> NDArray[np.int64]:
    chosen = draw(st.sets(st.sampled_from(PAIRS), max_size=12))
    return np.array(sorted(chosen), dtype=np.int64).reshape(-1, 2)


def adjacent(bonds: NDArray[np.int64]) -> NDArray[np.bool_]:
    matrix = np.zeros((ATOMS, ATOMS), dtype=bool)
    matrix[tuple(bonds.T)] = matrix[tuple(bonds.T[::-1])] = True
    return matrix


@settings(deadline=None, max_examples=60)
@given(bonds())
def test_triplets_are_the_pairs_of_neighbours_and_are_found_by_them(
    bonds: NDArray[np.int64],
) -> None:
    neighbours = Neighbours.of(bonds, ATOMS)
    triplets = triplets_of(neighbours)
    found = [
        (int(neighbours.centre[one]), int(neighbours.other[one]), int(neighbours.other[two]))
        for one, two in zip(triplets.first, triplets.second, strict=True)
    ]
    there = adjacent(bonds)
    assert found == [
        (centre, one, two)
        for centre in range(ATOMS)
        for one, two in combinations(np.flatnonzero(there[centre]).tolist(), 2)
    ]
    for pair in ((triplets.first, triplets.second), (triplets.second, triplets.first)):
        rows = triplet_rows(triplets, neighbours, *pair)
        assert rows.tolist() == list(range(len(found)))
    ends = bonds[neighbours.bond]
    assert (np.sort(np.stack([neighbours.centre, neighbours.other], 1), axis=1) == ends).all()


@settings(deadline=None, max_examples=60)
@given(bonds())
def test_paths_are_three_bonds_in_a_row(bonds: NDArray[np.int64]) -> None:
    neighbours = Neighbours.of(bonds, ATOMS)
    paths = paths_of(neighbours)
    centre, other = neighbours.centre, neighbours.other
    found = list(
        zip(*(a.tolist() for a in (centre[paths.bond], other[paths.bond], other[paths.first],
                                   other[paths.second])), strict=True)
    )  # fmt: skip
    there = adjacent(bonds)
    assert found == [
        (low, high, one, two)
        for low, high in bonds.tolist()
        for one in np.flatnonzero(there[low]).tolist()
        for two in np.flatnonzero(there[high]).tolist()
        if one != high and two != low
    ]
    assert (centre[paths.second] == other[paths.bond]).all()


def test_a_dihedral_angle_is_between_the_planes_and_three_in_a_line_have_none() -> None:
    a, b, c = (np.random.default_rng(k).normal(size=(50, 3)) for k in range(3))
    angles, spanned = dihedral_angles(a, b, c)
    assert spanned.all()
    one, two = np.cross(a, b), np.cross(-b, c)
    np.testing.assert_allclose(angles, bond_angles(one, two), atol=1e-7)
    assert not dihedral_angles(2 * b, b, c)[1].any()


def test_the_nearest_two_decide_the_angle_and_fewer_than_three_atoms_have_none() -> None:
    places = np.array([[0, 0, 0], [1, 0, 0], [0, 1.1, 0], [0, 0, 5], [9, 9, 9], [9, 9, 8.0]])
    angles = nearest_angles(places, np.array([0, 4, 6]))
    assert angles[0] == pytest.approx(np.pi / 2)
    assert angles[1] == pytest.approx(np.arctan(1.1))
    assert angles[4:].tolist() == [0, 0]
