"""Chemical bonds and partial charges of molecules, from positions alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.data.molecules.tables import Structures, ranges
from equipoise.errors import UserError

WITHOUT_RDKIT = "Molecules need the package rdkit: pip install 'equipoise[nmr]'."
REACH = 1.3
"""Atoms nearer than this times the sum of their covalent radii are bonded."""
NET_CHARGES = (0, 1, -1)
"""Net charges of a molecule, in elementary charges, in the order in which they are tried."""
MOST_TRIALS = 10_000
"""How many sets of bond orders are tried before a molecule counts as one that is not perceived."""


class Perceived(NamedTuple):
    """What is known of the atoms of some molecules besides their positions.

    bonds: int64 (E, 2), rows of the atoms, the lower first, sorted. orders: float64 (E,): 1, 1.5
    where aromatic, 2 or 3. charges: float64 (N,), Gasteiger's, in elementary charges. by_radii:
    bool (M,), whether a molecule could not be perceived: its bonds then all have order 1, between
    atoms within their covalent radii, and its charges are 0.
    """

    bonds: NDArray[np.int64]
    orders: NDArray[np.float64]
    charges: NDArray[np.float64]
    by_radii: NDArray[np.bool_]


def perceive(structures: Structures) -> Perceived:
    """The bonds and charges of molecules (see `Perceived`).

    The bonds are those of xyz2mol (Kim and Kim 2015, doi 10.1002/bkcs.10334): neighbours by
    covalent radii, then the bond orders that satisfy the valences, charged fragments allowed.
    Raises UserError if rdkit is missing or a symbol is not an element.
    """
    numbers = atomic_numbers(structures)
    found = [
        _of_molecule(numbers[first:last], structures.positions[first:last])
        for first, last in zip(structures.starts[:-1], structures.starts[1:], strict=True)
    ]
    counts = np.array([len(bonds) for bonds, _, _, _ in found], dtype=np.int64)
    shifts = np.repeat(structures.starts[:-1], counts)[:, None]
    return Perceived(
        np.concatenate([bonds for bonds, _, _, _ in found]) + shifts,
        np.concatenate([orders for _, orders, _, _ in found]),
        np.concatenate([charges for _, _, charges, _ in found]),
        np.array([by_radii for _, _, _, by_radii in found]),
    )


def atomic_numbers(structures: Structures) -> NDArray[np.int64]:
    """The atomic number of every atom (N,). Raises UserError if a symbol is not an element."""
    symbols, places = np.unique(structures.symbols, return_inverse=True)
    known = _elements()
    for symbol in symbols:
        if str(symbol) not in known:
            row = np.flatnonzero(structures.symbols == symbol)[0]
            molecule = np.searchsorted(structures.starts, row, side="right") - 1
            raise UserError(
                f"Atom {row - structures.starts[molecule]} of {structures.names[molecule]} is "
                f"{str(symbol)!r}, which is no element: correct it."
            )
    return np.array([known[str(symbol)] for symbol in symbols], dtype=np.int64)[places]


def chemistry() -> Any:
    """The package rdkit.Chem. Raises UserError if it is missing."""
    try:
        from rdkit import Chem
    except ImportError as error:
        raise UserError(WITHOUT_RDKIT) from error
    return Chem


@lru_cache(maxsize=1)
def _elements() -> dict[str, int]:
    table = chemistry().GetPeriodicTable()
    return {table.GetElementSymbol(number): number for number in range(1, 119)}


class _Molecule(NamedTuple):
    """The perception of one molecule; the bonds are rows within the molecule."""

    bonds: NDArray[np.int64]
    orders: NDArray[np.float64]
    charges: NDArray[np.float64]
    by_radii: bool


def _of_molecule(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> _Molecule:
    molecule = _perceived_by_rdkit(numbers, positions)
    if molecule is None:
        bonds = _bonds_by_radii(numbers, positions)
        return _Molecule(bonds, np.ones(len(bonds)), np.zeros(len(numbers)), True)
    bonds = np.array(
        [
            (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), bond.GetBondTypeAsDouble())
            for bond in molecule.GetBonds()
        ]
    ).reshape(-1, 3)
    ends = np.sort(bonds[:, :2].astype(np.int64), axis=1)
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    return _Molecule(ends[order], bonds[order, 2], _charges(molecule), False)


def _perceived_by_rdkit(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> Any:
    """The molecule with its bonds; None if no net charge gives one."""
    from rdkit import rdBase
    from rdkit.Chem import rdDetermineBonds

    Chem = chemistry()
    with rdBase.BlockLogs():
        for charge in NET_CHARGES:
            molecule = _bare_molecule(Chem, numbers, positions)
            try:
                rdDetermineBonds.DetermineBonds(
                    molecule, charge=charge, allowChargedFragments=True, embedChiral=False,
                    useVdw=True, maxIterations=MOST_TRIALS,
                )  # fmt: skip
                Chem.SanitizeMol(molecule)
            except (ValueError, RuntimeError):  # no bond orders for this charge, which is counted
                continue
            return molecule
    return None


def _bare_molecule(Chem: Any, numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> Any:
    molecule, conformer = Chem.RWMol(), Chem.Conformer(len(numbers))
    for row, (number, position) in enumerate(zip(numbers.tolist(), positions, strict=True)):
        atom = Chem.Atom(number)
        atom.SetNoImplicit(True)
        molecule.AddAtom(atom)
        conformer.SetAtomPosition(row, position)
    molecule.AddConformer(conformer)
    return molecule


def _charges(molecule: Any) -> NDArray[np.float64]:
    """Gasteiger's partial charges; 0 for an atom without parameters."""
    from rdkit import rdBase
    from rdkit.Chem import rdPartialCharges

    with rdBase.BlockLogs():
        rdPartialCharges.ComputeGasteigerCharges(molecule)
    charges = [atom.GetDoubleProp("_GasteigerCharge") for atom in molecule.GetAtoms()]
    return np.nan_to_num(np.array(charges), nan=0.0, posinf=0.0, neginf=0.0)


def _bonds_by_radii(
    numbers: NDArray[np.int64], positions: NDArray[np.float64]
) -> NDArray[np.int64]:
    table = chemistry().GetPeriodicTable()
    radii = np.array([table.GetRcovalent(number) for number in numbers.tolist()])
    sizes = np.arange(len(numbers))
    second = np.repeat(sizes, sizes)
    first = ranges(np.zeros_like(sizes), sizes)
    distances = np.linalg.norm(positions[first] - positions[second], axis=1)
    near = distances <= REACH * (radii[first] + radii[second])
    bonds = np.stack([first[near], second[near]], axis=1)
    return bonds[np.lexsort((bonds[:, 1], bonds[:, 0]))]
