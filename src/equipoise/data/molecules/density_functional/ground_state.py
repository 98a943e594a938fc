"""The ground state of a molecule, by density functional theory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.data.molecules.density_functional.basis_sets import Level, shells
from equipoise.data.molecules.density_functional.geometries import NoCouplings

FUNCTIONAL = "b3lypg"
"""B3LYP with the third VWN formula, as in Gaussian and in PySCF's `b3lyp` since version 2.3."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GroundState:
    """A converged closed-shell calculation of one molecule.

    field: PySCF's restricted Kohn-Sham object.
    """

    field: Any

    @property
    def molecule(self) -> Any:
        """PySCF's molecule."""
        return self.field.mol

    @property
    def energy(self) -> float:
        """The total energy in Hartree."""
        return float(self.field.e_tot)

    @property
    def functions(self) -> int:
        """The number of basis functions."""
        return int(self.molecule.nao)

    @property
    def gap(self) -> float:
        """The gap between the highest occupied and the lowest empty orbital, in eV."""
        from pyscf.data.nist import HARTREE2EV

        energy, count = self.field.mo_energy, self.occupied.shape[1]
        return float(energy[count] - energy[count - 1]) * float(HARTREE2EV)

    @cached_property
    def occupied(self) -> Array:
        """(basis functions, occupied orbitals)."""
        return np.asarray(self.field.mo_coeff[:, self.field.mo_occ > 0])

    @cached_property
    def empty(self) -> Array:
        """(basis functions, empty orbitals)."""
        return np.asarray(self.field.mo_coeff[:, self.field.mo_occ == 0])

    def dipole(self) -> Array:
        """The dipole moment (3,) in Debye."""
        return np.asarray(self.field.dip_moment(verbose=0))

    def charges(self) -> Array:
        """Mulliken charges (atoms,) in elementary charges."""
        return np.asarray(self.field.mulliken_pop(verbose=0)[1])

    def between(self, operators: Array) -> Array:
        """(n, empty, occupied) from operators (n, functions, functions) in the atomic basis."""
        return self.empty.T @ operators @ self.occupied


def ground_state(symbols: Sequence[str], positions: Array, level: Level) -> GroundState:
    """The B3LYP ground state; positions (atoms, 3) in Angstrom.

    Raises NoCouplings if neither of two methods converges, and KeyError for an element without a
    basis set.
    """
    from pyscf import dft, gto

    molecule = gto.M(
        atom=list(zip(symbols, positions.tolist(), strict=True)),
        basis=shells(level, symbols), verbose=0,
    )  # fmt: skip
    field = dft.RKS(molecule, xc=FUNCTIONAL)
    field.chkfile = None
    field.conv_tol = 1e-10
    field.kernel()
    if not field.converged:  # slower than extrapolation, but it cannot oscillate
        field = field.newton()
        field.kernel()
        field = field.undo_newton() if field.converged else field
    if not field.converged:
        raise NoCouplings("the self-consistent field does not converge")
    return GroundState(field)
