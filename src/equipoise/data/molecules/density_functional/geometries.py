"""The geometry of a molecule, from SMILES or given, and the pairs of nuclei that are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.data.molecules.density_functional.basis_sets import ELEMENTS
from equipoise.data.molecules.features import chemistry
from equipoise.data.molecules.tables import TYPES

SEED = 7
"""Seed of the embedding: the one used for the bundled couplings."""
MOST_STEPS = 2000


class NoCouplings(Exception):
    """A molecule has no couplings, or they cannot be computed; the message is the reason."""


@dataclass(frozen=True)
class Geometry:
    """A closed-shell, neutral molecule.

    symbols: of the A atoms. positions: (A, 3), Angstrom. distances: int (A, A), numbers of bonds.
    """

    symbols: tuple[str, ...]
    positions: NDArray[np.float64]
    distances: NDArray[np.int64]

    def pairs(self) -> list[tuple[int, int, str]]:
        """Hydrogen, other atom and type of each coupling; two hydrogens are listed once, in order.

        Raises NoCouplings if there is none.
        """
        found = [
            (a, b, kind)
            for a in self._hydrogens()
            for b, symbol in enumerate(self.symbols)
            if (kind := f"{self.distances[a, b]}JH{symbol}") in TYPES and (symbol != "H" or a < b)
        ]
        if not found:
            raise NoCouplings("no hydrogen is one to three bonds from another, a C or an N")
        return found

    def _hydrogens(self) -> list[int]:
        return [atom for atom, symbol in enumerate(self.symbols) if symbol == "H"]


def from_smiles(smiles: str) -> Geometry:
    """One conformer: ETKDG (version 3, with a fixed seed), then a minimum of MMFF94.

    Raises NoCouplings if this is not the SMILES of one neutral closed-shell molecule of H, C, N, O
    and F, or cannot be embedded.

    Source: Wang, Witek, Landrum, Riniker 2020, J. Chem. Inf. Model. 60, 2044; Halgren 1996,
    J. Comput. Chem. 17, 490.
    """
    from rdkit import rdBase
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    Chem = chemistry()
    with rdBase.BlockLogs():
        plain = Chem.MolFromSmiles(smiles)
        if plain is None or not plain.GetNumAtoms():
            raise NoCouplings("RDKit cannot read the SMILES")
        molecule = Chem.AddHs(plain)
        _check(molecule)
        settings: Any = rdDistGeom.ETKDGv3()
        settings.randomSeed = SEED
        if rdDistGeom.EmbedMolecule(molecule, settings) != 0:
            raise NoCouplings("ETKDG finds no conformer")
        status = rdForceFieldHelpers.MMFFOptimizeMolecule(molecule, maxIters=MOST_STEPS)
    if status != 0:
        raise NoCouplings("MMFF94 " + ("finds no minimum" if status > 0 else "has no parameters"))
    return _geometry(molecule)


def from_positions(symbols: Sequence[str], positions: NDArray[np.float64]) -> Geometry:
    """Given positions (A, 3) in Angstrom, with a bond between any two atoms that are close enough.

    Raises NoCouplings if this is not one molecule, has another element, or has an odd number of
    electrons; the molecule is taken to be neutral.
    """
    from rdkit import rdBase
    from rdkit.Chem import rdDetermineBonds

    Chem = chemistry()
    unknown = sorted(set(symbols) - set(ELEMENTS))
    if unknown:
        raise NoCouplings(_only_elements(unknown))
    molecule, conformer = Chem.RWMol(), Chem.Conformer(len(symbols))
    for row, (symbol, position) in enumerate(zip(symbols, positions.tolist(), strict=True)):
        molecule.AddAtom(Chem.Atom(symbol))
        conformer.SetAtomPosition(row, position)
    molecule.AddConformer(conformer)
    with rdBase.BlockLogs():
        rdDetermineBonds.DetermineConnectivity(molecule)
    if sum(atom.GetAtomicNum() for atom in molecule.GetAtoms()) % 2:
        raise NoCouplings("it has an odd number of electrons: only closed shells are computed")
    if len(Chem.GetMolFrags(molecule)) > 1:
        raise NoCouplings("its atoms are not all bonded to each other: give one molecule")
    return _geometry(molecule)


def _check(molecule: Any) -> None:
    """Raise NoCouplings for what the method does not cover."""
    Chem = chemistry()
    atoms = list(molecule.GetAtoms())
    unknown = sorted({atom.GetSymbol() for atom in atoms} - set(ELEMENTS))
    if unknown:
        raise NoCouplings(_only_elements(unknown))
    if any(atom.GetIsotope() for atom in atoms):
        raise NoCouplings("it names isotopes: couplings are those of 1H, 13C and 14N")
    if charge := sum(atom.GetFormalCharge() for atom in atoms):
        raise NoCouplings(f"its charge is {charge:+d}: only neutral molecules are computed")
    if any(atom.GetNumRadicalElectrons() for atom in atoms):
        raise NoCouplings("it is a radical: only closed shells are computed")
    if len(Chem.GetMolFrags(molecule)) > 1:
        raise NoCouplings("it is more than one molecule: give each a line")


def _only_elements(unknown: Sequence[str]) -> str:
    return f"it holds {', '.join(unknown)}: only {', '.join(ELEMENTS)} have a basis set"


def _geometry(molecule: Any) -> Geometry:
    return Geometry(
        tuple(atom.GetSymbol() for atom in molecule.GetAtoms()),
        np.asarray(molecule.GetConformer().GetPositions(), dtype=np.float64),
        np.asarray(chemistry().GetDistanceMatrix(molecule)).astype(np.int64),
    )
