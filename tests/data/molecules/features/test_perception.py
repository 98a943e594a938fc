"""Bonds and charges from positions alone, of whole molecules and of odd ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest

from equipoise.data.molecules.features import graphs_of, perception
from equipoise.data.molecules.features.perception import Perceived, perceive
from equipoise.data.molecules.nmr_small import bundled
from equipoise.data.molecules.tables import Structures
from equipoise.errors import UserError
from tests.data.molecules.csv_writing import (
    AMMONIUM,
    CLUSTER,
    CYANIDE,
    ETHYNE,
    METHANE,
    WATER,
    Atom,
)

BENZENE: list[Atom] = [
    (symbol, radius * np.cos(np.pi * k / 3), radius * np.sin(np.pi * k / 3), 0)
    for symbol, radius in (("C", 1.39), ("H", 2.48))
    for k in range(6)
]
BUTADIENE: list[Atom] = [
    ("C", 0, 0, 0), ("C", 1.34, 0, 0), ("C", 2.07, 1.26, 0), ("C", 3.41, 1.26, 0),
    ("H", -0.55, 0.94, 0), ("H", -0.55, -0.94, 0), ("H", 1.87, -0.94, 0), ("H", 1.54, 2.2, 0),
    ("H", 3.96, 0.32, 0), ("H", 3.96, 2.2, 0),
]  # fmt: skip


def of(*molecules: Sequence[Atom]) -> Structures:
    atoms = [atom for molecule in molecules for atom in molecule]
    return Structures(
        tuple(f"m{number}" for number in range(len(molecules))),
        np.concatenate([[0], np.cumsum([len(molecule) for molecule in molecules])]),
        np.array([symbol for symbol, *_ in atoms]),
        np.array([place for _, *place in atoms], dtype=float),
    )


def orders(found: Perceived) -> list[tuple[int, int, float]]:
    return [
        (int(low), int(high), float(order))
        for (low, high), order in zip(found.bonds, found.orders, strict=True)
    ]


def test_bond_orders_satisfy_the_valences() -> None:
    found = perceive(of(CYANIDE, METHANE, ETHYNE))
    assert orders(found) == [
        (0, 1, 3), (0, 2, 1), (3, 4, 1), (3, 5, 1), (3, 6, 1), (3, 7, 1),
        (8, 9, 3), (8, 10, 1), (9, 11, 1),
    ]  # fmt: skip
    assert not found.by_radii.any()
    assert found.charges[:3].sum() == pytest.approx(0, abs=1e-6)
    assert found.charges[0] > 0 > found.charges[1]


def test_aromatic_bonds_count_one_and_a_half() -> None:
    ring = [order for low, high, order in orders(perceive(of(BENZENE))) if high < 6]
    assert ring == [1.5] * 6


def test_a_charged_molecule_is_perceived_with_its_charge() -> None:
    found = perceive(of(AMMONIUM))
    assert [order for *_, order in orders(found)] == [1] * 4
    assert found.charges.sum() == pytest.approx(1, abs=1e-6)
    assert not found.by_radii.any()


def test_what_cannot_be_perceived_has_bonds_by_radii_and_the_others_their_own() -> None:
    together, alone = perceive(of(CLUSTER, CYANIDE)), perceive(of(CYANIDE))
    assert together.by_radii.tolist() == [True, False]
    assert {order for *_, order in orders(together)[:-2]} == {1}
    assert (0, 1) in {(low, high) for low, high, _ in orders(together)}
    assert not together.charges[:7].any()
    np.testing.assert_array_equal(together.bonds[-2:] - 7, alone.bonds)
    np.testing.assert_array_equal(together.charges[7:], alone.charges)


def test_bond_orders_that_take_too_many_trials_are_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not perceive(of(BUTADIENE)).by_radii.any()
    monkeypatch.setattr(perception, "MOST_TRIALS", 1)
    assert perceive(of(BUTADIENE)).by_radii.tolist() == [True]


@pytest.mark.parametrize(
    "molecule", [[("He", 0.0, 0.0, 0.0)], [("H", 0.0, 0.0, 0.0), ("H", 9.0, 0.0, 0.0)]]
)
def test_a_molecule_without_bonds_is_a_graph_all_the_same(molecule: list[Atom]) -> None:
    graphs = graphs_of(of(molecule, WATER), None)
    assert graphs.level("atom").counts.tolist() == [len(molecule), 3]
    assert graphs.level("pair").counts.tolist() == [len(molecule) - 1, 3]
    assert graphs.level("triplet").counts.tolist() == [0, 1]
    assert not graphs.level("atom").columns["feature"][: len(molecule), 0].any()
    assert all(np.isfinite(level.columns["label"]).all() for level in graphs.levels.values())


def test_elements_that_have_no_gasteiger_parameters_have_a_charge_of_0() -> None:
    found = perceive(of([("Kr", 0.0, 0.0, 0.0)], WATER))
    assert np.isfinite(found.charges).all()
    assert found.charges[0] == 0


def test_symbols_of_two_letters_keep_their_labels_apart() -> None:
    chloromethane = [("C", 0, 0, 0), ("Cl", 1.78, 0, 0), *METHANE[1:4]]
    chloromethane[2:] = [
        ("H", -0.35, 1.03, 0.0), ("H", -0.35, -0.51, 0.89), ("H", -0.35, -0.51, -0.89),
    ]  # fmt: skip
    levels = graphs_of(of(chloromethane), None).levels  # type: ignore[arg-type]
    assert levels["atom"].labels[1] == ("C_4.0", "Cl_1.0", "H_1.0")
    assert levels["triplet"].labels[0] == ("CClH", "CHH")
    assert "C-Cl_1.0" in levels["pair"].labels[0]


def test_all_bundled_molecules_are_perceived() -> None:
    assert not bundled(contributions=False).by_radii.any()


def test_without_rdkit_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(UserError, match=r"pip install 'equipoise\[nmr\]'"):
        perception.chemistry()
