"""Nuclear spin-spin couplings by density functional theory: from a geometry to hertz.

The indirect coupling of two nuclei is the second derivative of the energy with respect to their
magnetic moments. Ramsey's four contributions to it are, for a closed shell,

    fc   Fermi contact            4 <h_A | U_B> with h = (4 pi / 3) delta(r_A): real, triplet
    sd   spin dipole              the same, five components of a dipole's field: real, triplet
    pso  paramagnetic spin-orbit  the same with (r_A x p) / r_A^3: imaginary, singlet
    dso  diamagnetic spin-orbit   2/3 of the mean of r_A . r_B / (r_A^3 r_B^3) in the ground state

where r_A leads from nucleus A to the electron, and U_B, the first-order change of the occupied
orbitals, solves the coupled-perturbed equations (e_a - e_i) U + V[U] = -h_B. They are solved for
hydrogens alone, as every pair has one; all perturbations of a kind share one Krylov space.

Source: Helgaker, Jaszunski, Ruud 1999, Chem. Rev. 99, 293; Sychrovsky, Grafenstein,
Cremer 2000, J. Chem. Phys. 113, 3530.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from equipoise.data.molecules.density_functional.geometries import NoCouplings
from equipoise.data.molecules.density_functional.ground_state import Array, GroundState
from equipoise.data.molecules.tables import CONTRIBUTIONS

CONTACT_GRID, DIPOLE_GRID = 1, 0
"""PySCF's grid levels for the kernel. The response to a contact is sharp at its nucleus: on level
0 methane's coupling is 1.8 Hz off, on level 1 less than 0.01. Dipoles need only level 0."""
TOLERANCE = 1e-5
MAX_CYCLES = 60


def contributions(state: GroundState, pairs: Sequence[tuple[int, int]]) -> Array:
    """(pairs, 4) fc, sd, pso and dso in hertz; the first atom of a pair is the one that responds.

    Nuclei are PySCF's default isotopes, 1H, 13C and 14N among them. Raises NoCouplings.
    """
    first = sorted({a for a, _ in pairs})
    every = sorted({atom for pair in pairs for atom in pair})
    rows = {
        "fc": paramagnetic(state, contact, real_response(state, CONTACT_GRID), first, every),
        "sd": paramagnetic(state, dipole_field, real_response(state, DIPOLE_GRID), first, every),
        "pso": paramagnetic(state, orbital, imaginary_response(state), first, every),
        "dso": diamagnetic(state, first, every),
    }
    place = np.array([(first.index(a), every.index(b)) for a, b in pairs]).T
    energies = np.stack([rows[name][place[0], place[1]] for name in CONTRIBUTIONS], axis=-1)
    return energies * hertz([state.molecule.atom_symbol(atom) for pair in pairs for atom in pair])


def hertz(symbols: Sequence[str]) -> Array:
    """(pairs, 1) that turns a derivative in atomic units into J; symbols: those of pairs in turn.

    J = K g_A g_B (mu_N in atomic units)^2 alpha^4 E_h / h, with the nuclear g factors.
    """
    from pyscf.data import nist
    from pyscf.data.gyro import get_nuc_g_factor

    magneton = 0.5 * nist.E_MASS / nist.PROTON_MASS
    unit = nist.ALPHA**4 * nist.HARTREE2J / nist.PLANCK * magneton**2
    factors = np.array([get_nuc_g_factor(symbol) for symbol in symbols]).reshape(-1, 2)
    return np.asarray(unit * factors.prod(axis=1, keepdims=True))


def paramagnetic(
    state: GroundState,
    operators: Callable[[GroundState, int], Array],
    response: Callable[[Array], Array],
    first: Sequence[int],
    every: Sequence[int],
) -> Array:
    """(first, every) isotropic mean of 4 <h_A | U_B>; 4 for both spins and the complex conjugate.

    operators: of an atom, (components, empty, occupied); contact has one component, which stands
    for three equal ones; other operators are summed over and divided by three.
    """
    fields = {atom: operators(state, atom) for atom in every}
    sources = np.stack([fields[atom] for atom in first])
    weight = 4.0 if sources.shape[1] == 1 else 4.0 / 3.0
    changes = solve(state, sources.reshape(-1, *sources.shape[2:]), response)
    properties = np.stack([fields[atom] for atom in every])
    return weight * np.einsum("acvo,bcvo->ab", changes.reshape(sources.shape), properties)


def solve(state: GroundState, sources: Array, response: Callable[[Array], Array]) -> Array:
    """The first-order orbitals U of (e_a - e_i) U + V[U] = -h, for sources h (n, empty, occupied).

    response: V. Raises NoCouplings.
    """
    from pyscf.lib import krylov

    energy, occupied = state.field.mo_energy, state.field.mo_occ > 0
    gaps = energy[~occupied][:, None] - energy[occupied]

    def relative(vectors: Array) -> Array:
        changes = vectors.reshape(-1, *gaps.shape)
        return (response(changes) / gaps).reshape(len(changes), -1)

    start = (-sources / gaps).reshape(len(sources), -1)
    try:
        found = krylov(relative, start, tol=TOLERANCE, max_cycle=MAX_CYCLES, verbose=0)
    except RuntimeError as error:
        raise NoCouplings("the coupled-perturbed equations do not converge") from error
    return np.asarray(found).reshape(sources.shape)


def real_response(state: GroundState, level: int) -> Callable[[Array], Array]:
    """V of a perturbation that flips spins: exchange and the functional's triplet kernel.

    level: of the grid on which the kernel is summed.
    """
    from pyscf.dft import gen_grid

    field = state.field.copy()
    field.grids = gen_grid.Grids(field.mol)
    field.grids.level = level
    field.grids.build()
    potential = field.gen_response(singlet=False, hermi=1)
    return lambda changes: _induced(state, changes, potential, 1)


def imaginary_response(state: GroundState) -> Callable[[Array], Array]:
    """V of an imaginary perturbation: exact exchange alone, as no density changes."""
    potential = state.field.gen_response(singlet=True, hermi=2)
    return lambda changes: _induced(state, changes, potential, -1)


def _induced(state: GroundState, changes: Array, potential: Any, sign: int) -> Array:
    half = 2 * (state.empty @ changes @ state.occupied.T)
    return state.between(potential(half + sign * half.transpose(0, 2, 1)))


def contact(state: GroundState, atom: int) -> Array:
    """(1, empty, occupied) of (4 pi / 3) delta(r - R)."""
    functions = state.molecule.eval_gto("GTOval", state.molecule.atom_coord(atom)[None])[0]
    values = np.outer(functions @ state.empty, functions @ state.occupied)
    return np.asarray(4 * np.pi / 3 * values[None])


def dipole_field(state: GroundState, atom: int) -> Array:
    """(5, empty, occupied) of (3 r r - r^2) / (2 r^5), as orthonormal traceless components.

    PySCF's integrals are those of contact and dipole together; the contact is in the trace alone.
    """
    size = state.functions
    with state.molecule.with_rinv_origin(state.molecule.atom_coord(atom)):
        mixed = state.molecule.intor("int1e_sa01sp", 12).reshape(3, 4, size, size)[:, :3]
    field = -0.5 * (mixed + mixed.transpose(0, 1, 3, 2))
    return state.between(np.einsum("kxy,xypq->kpq", _traceless(), field))


def orbital(state: GroundState, atom: int) -> Array:
    """(3, empty, occupied), the imaginary part of (r x p) / r^3."""
    with state.molecule.with_rinv_origin(state.molecule.atom_coord(atom)):
        return state.between(-state.molecule.intor_asymmetric("int1e_prinvxp", 3))


def diamagnetic(state: GroundState, first: Sequence[int], every: Sequence[int]) -> Array:
    """(first, every) of 2/3 of the mean of r_A . r_B / (r_A^3 r_B^3), summed over a grid.

    r_A / r_A^3 is singular at a nucleus, but grid cells there shrink as r^2.
    """
    field = state.field
    density = field._numint.get_rho(field.mol, field.make_rdm1(), field.grids)
    offsets = field.grids.coords - field.mol.atom_coords()[list(every), None]
    fields = offsets / np.linalg.norm(offsets, axis=-1, keepdims=True) ** 3
    rows = fields[[list(every).index(atom) for atom in first]]
    weights = density * field.grids.weights
    return np.asarray(2 / 3 * np.einsum("agx,g,bgx->ab", rows, weights, fields, optimize=True))


def _traceless() -> Array:
    """(5, 3, 3) orthonormal symmetric matrices without trace."""
    root = np.sqrt(0.5)
    basis = np.zeros((5, 3, 3))
    for k, (x, y) in enumerate(((0, 1), (0, 2), (1, 2))):
        basis[k, x, y] = basis[k, y, x] = root
    basis[3] = np.diag([root, -root, 0])
    basis[4] = np.diag([1, 1, -2]) / np.sqrt(6)
    return basis
