"""Couplings against the bundled ones, PySCF's own, and what must hold of any."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pyscf")
pytest.importorskip("rdkit")

from equipoise.data.molecules.density_functional import spin_spin
from equipoise.data.molecules.density_functional.geometries import NoCouplings
from equipoise.data.molecules.density_functional.ground_state import GroundState, ground_state
from equipoise.data.molecules.density_functional.spin_spin import contributions, hertz
from tests.data.molecules.density_functional.bundled import molecules

ROOM = 0.05
"""Hz. Of the 0.2 that are asked for; reached are 0.02."""
CYANIDE = np.array([[0.0, 0, -1.066], [0, 0, 0], [0, 0, 1.153]])
AMMONIA_OF_CHAMPS = {
    (1, 0): (31.0096, 0.0606337, 1.93334, 0.0680445),
    (1, 2): (-11.3809, 0.557991, 5.0371, -4.99579),
}
"""The bundled geometry at the level of the competition, by an implementation that reproduces its
labels: 83.02, 0.2546, 1.2586, 0.2720 Hz of methane's 83.0224, 0.254579, 1.25862, 0.27201."""


@pytest.fixture(scope="module")
def cyanide() -> GroundState:
    return ground_state(["H", "C", "N"], CYANIDE, "pcj0")


@pytest.mark.parametrize(
    "smiles",
    [
        "C",
        "N",
        pytest.param("C=C", marks=pytest.mark.slow),
        pytest.param("CC", marks=pytest.mark.slow),
        pytest.param("CC=O", marks=pytest.mark.slow),
        pytest.param("C#N", marks=pytest.mark.slow),
    ],
)
def test_the_bundled_couplings_come_out(smiles: str) -> None:
    bundled = molecules()[smiles]
    state = ground_state(bundled.symbols, bundled.positions, "pcj0")
    found = contributions(state, [(a, b) for a, b, _ in bundled.pairs])
    np.testing.assert_allclose(found, bundled.contributions, rtol=0, atol=ROOM)
    np.testing.assert_allclose(found.sum(axis=1), bundled.total, rtol=0, atol=ROOM)


def test_the_level_of_the_competition() -> None:
    bundled = molecules()["N"]
    state = ground_state(bundled.symbols, bundled.positions, "champs")
    found = contributions(state, list(AMMONIA_OF_CHAMPS))
    np.testing.assert_allclose(found, list(AMMONIA_OF_CHAMPS.values()), rtol=0, atol=ROOM)


@pytest.mark.filterwarnings("ignore:Module .* is under testing")
def test_pyscf_has_the_same_contributions(cyanide: GroundState) -> None:
    pyscf_couplings = pytest.importorskip("pyscf.prop.ssc.rks").SSC(cyanide.field)
    pairs = [(0, 1), (1, 0)]
    pyscf_couplings.nuc_pair = pairs
    molecule, field = cyanide.molecule, cyanide.field
    contact = pyscf_couplings.make_fc()
    orbitals = pyscf_couplings.solve_mo1()[0]
    tensors = {
        "fc": contact,
        "sd": pyscf_couplings.make_fcsd() - contact,
        "pso": pyscf_couplings.make_pso(molecule, orbitals, field.mo_coeff, field.mo_occ),
        "dso": pyscf_couplings.make_dso(molecule, field.make_rdm1()),
    }
    from pyscf.data.nist import ALPHA

    unit = hertz(["H", "C"]).item() / ALPHA**4  # which PySCF's tensors have in them
    expected = [unit * np.trace(tensor[0]) / 3 for tensor in tensors.values()]
    found = contributions(cyanide, pairs)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=0.02)


def test_either_nucleus_may_respond(cyanide: GroundState) -> None:
    one, other = contributions(cyanide, [(0, 2), (2, 0)])
    np.testing.assert_allclose(one, other, rtol=0, atol=0.02)


def test_a_turned_and_moved_molecule_has_the_same_couplings() -> None:
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turned = ground_state(["H", "C", "N"], CYANIDE @ rotation + [1, -2, 3], "pcj0")
    straight = ground_state(["H", "C", "N"], CYANIDE, "pcj0")
    assert turned.energy == pytest.approx(straight.energy, abs=1e-4)
    pairs = [(0, 1), (0, 2)]
    found, expected = (contributions(state, pairs) for state in (turned, straight))
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.1)


def test_equations_that_do_not_converge_are_told(
    cyanide: GroundState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spin_spin, "MAX_CYCLES", 1)
    with pytest.raises(NoCouplings, match="coupled-perturbed equations do not converge"):
        contributions(cyanide, [(0, 1)])


def test_a_field_that_oscillates_is_found_by_the_second_method(
    cyanide: GroundState, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyscf.dft.rks import RKS

    first = RKS.kernel

    def without_convergence(field: RKS, *arguments: object, **settings: object) -> float:
        energy = first(field, *arguments, **settings)
        field.converged = False
        return float(energy)

    monkeypatch.setattr(RKS, "kernel", without_convergence)
    state = ground_state(["H", "C", "N"], CYANIDE, "pcj0")
    assert state.energy == pytest.approx(cyanide.energy, abs=1e-6)
    found, expected = (contributions(each, [(0, 1)]) for each in (state, cyanide))
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.02)


def test_a_field_that_no_method_finds_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyscf.dft.rks import RKS

    monkeypatch.setattr(RKS, "max_cycle", 1)
    with pytest.raises(NoCouplings, match="self-consistent field does not converge"):
        ground_state(["N", "N"], np.array([[0.0, 0, 0], [0, 0, 3.0]]), "pcj0")
