"""Geometries and pairs of nuclei, and the molecules that have none."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rdkit")

from equipoise.data.molecules.density_functional.geometries import (
    NoCouplings,
    from_positions,
    from_smiles,
)
from tests.data.molecules.density_functional.bundled import molecules


@pytest.mark.parametrize("smiles", list(molecules()))
def test_smiles_and_positions_give_the_bundled_pairs(smiles: str) -> None:
    bundled = molecules()[smiles]
    embedded = from_smiles(smiles)
    assert embedded.symbols == bundled.symbols
    assert embedded.pairs() == bundled.pairs
    given = from_positions(bundled.symbols, bundled.positions)
    assert given.pairs() == bundled.pairs
    assert np.array_equal(given.positions, bundled.positions)


def test_a_geometry_is_the_same_each_time() -> None:
    assert np.array_equal(from_smiles("CCCO").positions, from_smiles("CCCO").positions)


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("xx", "cannot read the SMILES"),
        ("C1CC", "cannot read the SMILES"),
        ("c1cccc1", "cannot read the SMILES"),
        ("CS", "it holds S: only H, C, N, O, F have a basis set"),
        ("*C", "it holds *"),
        ("C[NH3+]", r"its charge is \+1"),
        ("[CH3]", "it is a radical"),
        ("O.O", "more than one molecule"),
        ("[2H]C", "names isotopes"),
        ("F", "MMFF94 has no parameters"),
        ("C123C45C16C24C356", "no conformer"),
    ],
)
def test_smiles_without_a_geometry(smiles: str, reason: str) -> None:
    with pytest.raises(NoCouplings, match=reason):
        from_smiles(smiles)


@pytest.mark.parametrize("smiles", ["O=C=O", "FC(F)(F)F", "FO"])
def test_molecules_without_a_pair(smiles: str) -> None:
    geometry = from_smiles(smiles)
    with pytest.raises(NoCouplings, match="no hydrogen is one to three bonds from"):
        geometry.pairs()


@pytest.mark.parametrize(
    ("symbols", "last", "reason"),
    [
        ("HHO", 9.0, "not all bonded"),
        ("HHN", 0.3, "odd number of electrons"),
        ("HHS", 0.3, "it holds S"),
    ],
)
def test_positions_of_what_is_no_molecule(symbols: str, last: float, reason: str) -> None:
    positions = np.array([[0.9, 0, 0], [-0.9, 0, 0], [0, last, 0]])
    with pytest.raises(NoCouplings, match=reason):
        from_positions(tuple(symbols), positions)
