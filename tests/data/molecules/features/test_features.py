"""Features of a molecule do not depend on where it lies, nor on how its atoms are numbered."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from equipoise.data.molecules import nmr_small
from equipoise.data.molecules.features import graphs_of
from equipoise.data.molecules.graphs import LEVELS, MoleculeGraphs
from equipoise.data.molecules.tables import Structures, read_structures

MOLECULES = st.integers(0, 311)


@pytest.fixture(scope="module")
def structures() -> Structures:
    return read_structures(nmr_small.folder() / "structures.csv")


def labels(graphs: MoleculeGraphs, name: str) -> Counter[tuple[str, ...]]:
    level = graphs.level(name)
    return Counter(
        tuple(names[code] for names, code in zip(level.labels, codes, strict=True))
        for codes in level.columns["label"]
    )


@settings(deadline=None, max_examples=25)
@given(MOLECULES, st.integers(0, 99))
def test_a_moved_molecule_has_the_same_features(
    structures: Structures, molecule: int, seed: int
) -> None:
    own = structures.at(np.array([molecule]))
    generator = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed)
    places = turn.apply(own.positions) + generator.normal(size=3)
    one = graphs_of(own, None)
    other = graphs_of(Structures(own.names, own.starts, own.symbols, places), None)
    for name in LEVELS:
        assert labels(one, name) == labels(other, name)
    for key in ("atoms", "squared_distance"):  # the farthest pairs may be equally far
        here, there = (np.sort(g.level("pair").columns[key], axis=0) for g in (one, other))
        np.testing.assert_allclose(np.sort(here, axis=0), np.sort(there, axis=0), atol=1e-4)
    for name in ("triplet", "quad"):
        here, there = (g.level(name).columns["angle"] for g in (one, other))
        np.testing.assert_allclose(here, there, atol=2e-2)


@settings(deadline=None, max_examples=25)
@given(MOLECULES, st.randoms(use_true_random=False))
def test_numbering_the_atoms_otherwise_renames_them(
    structures: Structures, molecule: int, random: object
) -> None:
    own = structures.at(np.array([molecule]))
    order = np.arange(len(own.symbols))
    random.shuffle(order)  # type: ignore[attr-defined]
    one = graphs_of(own, None)
    other = graphs_of(
        Structures(own.names, own.starts, own.symbols[order], own.positions[order]), None
    )
    for name in LEVELS:
        assert labels(one, name) == labels(other, name)
    features = one.level("atom").columns["feature"][order]
    np.testing.assert_allclose(other.level("atom").columns["feature"], features, atol=1e-5)
    for name in ("triplet", "quad"):
        here, there = (np.sort(g.level(name).columns["angle"]) for g in (one, other))
        np.testing.assert_allclose(here, there, atol=1e-5)
