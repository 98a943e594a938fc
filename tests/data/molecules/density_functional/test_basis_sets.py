"""The basis sets: their sizes, and that the competition's is Gaussian's."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

pytest.importorskip("pyscf")

from pyscf import gto, scf

from equipoise.data.molecules.density_functional.basis_sets import (
    D_EXPONENTS,
    ELEMENTS,
    Level,
    gaussian_631g,
    radial_square,
    shells,
)


@pytest.mark.parametrize(("level", "hydrogen", "other"), [("pcj0", 3, 13), ("champs", 5, 28)])
def test_the_numbers_of_functions(level: Level, hydrogen: int, other: int) -> None:
    for element in ELEMENTS:
        atom = gto.M(atom=element, basis=shells(level, [element]), spin=None)
        assert atom.nao == (hydrogen if element == "H" else other)


@pytest.mark.parametrize("level", get_args(Level))
def test_another_element_has_none(level: Level) -> None:
    with pytest.raises(KeyError, match="Cl"):
        shells(level, ["H", "Cl"])


@pytest.mark.parametrize("exponent", D_EXPONENTS)
def test_a_difference_of_s_functions_is_r_squared_times_one(exponent: float) -> None:
    atom = gto.M(atom="Ne", basis={"Ne": [radial_square(exponent)]})
    radii = np.linspace(0, 6, 200)
    points = np.stack([radii, 0 * radii, 0 * radii], axis=1)
    found = atom.eval_gto("GTOval", points)[:, 0]
    exact = radii**2 * np.exp(-exponent * radii**2)
    exact *= found @ exact / (exact @ exact)
    assert np.abs(found - exact).max() < 1e-4 * np.abs(exact).max()


def test_the_energy_is_that_of_six_cartesian_functions() -> None:
    """Without the f shell, which is pure, a molecule of Cartesian functions spans the same."""
    ours = {element: gaussian_631g(element) for element in ("H", "F")}
    ours["F"] = [shell for shell in ours["F"] if shell[0] != 3]
    added = [radial_square(exponent) for exponent in D_EXPONENTS]
    cartesian = {"H": ours["H"], "F": [shell for shell in ours["F"] if shell not in added]}
    energies = [
        scf.RHF(gto.M(atom="H 0 0 0; F 0 0 0.917", basis=basis, cart=cart, verbose=0)).kernel()
        for basis, cart in ((ours, False), (cartesian, True))
    ]
    assert energies[0] == pytest.approx(energies[1], abs=1e-6)
