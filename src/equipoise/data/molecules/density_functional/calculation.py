"""The job and the result of a computation: the couplings of one molecule, and its table rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.data.molecules.couplings import COUPLING, PAIRS
from equipoise.data.molecules.density_functional.basis_sets import Level
from equipoise.data.molecules.density_functional.geometries import (
    Geometry,
    NoCouplings,
    from_positions,
    from_smiles,
)
from equipoise.data.molecules.tables import CONTRIBUTIONS, STRUCTURES, read_structures
from equipoise.errors import UserError

OF_MOLECULES = (
    "molecule_name", "smiles", "n_heavy", "n_atoms", "nao", "seconds", "homo_lumo_gap_ev",
)  # fmt: skip
TABLES = {
    "structures.csv": tuple(STRUCTURES),
    "train.csv": ("id", *PAIRS, COUPLING),
    "scalar_coupling_contributions.csv": (*PAIRS, *CONTRIBUTIONS),
    "molecules.csv": OF_MOLECULES,
    "dipole_moments.csv": ("molecule_name", "X", "Y", "Z"),
    "mulliken_charges.csv": ("molecule_name", "atom_index", "mulliken_charge"),
    "potential_energy.csv": ("molecule_name", "potential_energy"),
}
"""The files, and the columns of each."""

Rows = Iterator[tuple[str, list[Any]]]
"""Names of files, and a row for each."""


@dataclass(frozen=True)
class Job:
    """A molecule whose couplings are wanted: either its SMILES, or symbols and positions (A, 3)."""

    name: str
    level: Level
    smiles: str = ""
    symbols: tuple[str, ...] = ()
    positions: tuple[tuple[float, float, float], ...] = ()

    def geometry(self) -> Geometry:
        """Raises NoCouplings."""
        if self.smiles:
            return from_smiles(self.smiles)
        return from_positions(self.symbols, np.array(self.positions))


@dataclass(frozen=True)
class Calculated:
    """What was computed for a molecule, in containers that JSON supports.

    symbols, positions: Angstrom. pairs: hydrogen, other atom, type. contributions: (pairs, 4), Hz.
    energy: Hartree. dipole: (3,), Debye. charges: Mulliken's. functions: the number of basis
    functions. gap: between highest occupied and lowest empty orbital, eV. seconds: on one core.
    """

    name: str
    level: str
    smiles: str
    symbols: list[str]
    positions: list[list[float]]
    pairs: list[list[Any]]
    contributions: list[list[float]]
    energy: float
    dipole: list[float]
    charges: list[float]
    functions: int
    gap: float
    seconds: float

    def answers(self, job: Job) -> bool:
        """Whether this is the job's molecule: the SMILES, or all positions, are the same."""
        if job.smiles or self.smiles:
            return self.smiles == job.smiles
        positions = [list(position) for position in job.positions]
        return self.symbols == list(job.symbols) and self.positions == positions

    def rows(self) -> Rows:
        """Its rows in each of `TABLES`, without the ids of the couplings."""
        name = self.name
        for atom, symbol in enumerate(self.symbols):
            position = [f"{value:.10f}" for value in self.positions[atom]]
            yield "structures.csv", [name, atom, symbol, *position]
            yield "mulliken_charges.csv", [name, atom, f"{self.charges[atom]:.6f}"]
        for pair, parts in zip(self.pairs, self.contributions, strict=True):
            yield "train.csv", [name, *pair, f"{sum(parts):.6g}"]
            values = [f"{part:.6g}" for part in parts]
            yield "scalar_coupling_contributions.csv", [name, *pair, *values]
        yield "dipole_moments.csv", [name, *(f"{value:.4f}" for value in self.dipole)]
        yield "potential_energy.csv", [name, f"{self.energy:.6f}"]
        heavy, cost = sum(symbol != "H" for symbol in self.symbols), f"{self.seconds:.2f}"
        sizes = [heavy, len(self.symbols), self.functions]
        yield "molecules.csv", [name, self.smiles, *sizes, cost, f"{self.gap:.3f}"]


def calculate(job: Job) -> Calculated:
    """Compute the couplings of a molecule, on one PySCF thread. Raises NoCouplings."""
    from pyscf import lib

    from equipoise.data.molecules.density_functional.ground_state import ground_state
    from equipoise.data.molecules.density_functional.spin_spin import contributions

    began = time.process_time()
    lib.num_threads(1)
    geometry = job.geometry()
    pairs = geometry.pairs()
    try:
        state = ground_state(geometry.symbols, geometry.positions, job.level)
        values = contributions(state, [(a, b) for a, b, _ in pairs])
    except (MemoryError, np.linalg.LinAlgError) as error:  # two atoms on top of each other, say
        raise NoCouplings(f"its equations cannot be solved ({error!r})") from error
    if not np.isfinite(values).all():
        raise NoCouplings("its couplings are not finite")
    return Calculated(
        name=job.name,
        level=job.level,
        smiles=job.smiles,
        symbols=list(geometry.symbols),
        positions=geometry.positions.tolist(),
        pairs=[list(pair) for pair in pairs],
        contributions=values.tolist(),
        energy=state.energy,
        dipole=state.dipole().tolist(),
        charges=state.charges().tolist(),
        functions=state.functions,
        gap=state.gap,
        seconds=time.process_time() - began,
    )


def jobs_of_structures(file: Path, level: Level) -> list[Job]:
    """The molecules of a structures.csv. Raises UserError as `read_structures` does."""
    read = read_structures(file)
    ranges = zip(read.names, read.starts[:-1], read.starts[1:], strict=True)
    return [
        Job(
            name,
            level,
            symbols=tuple(map(str, read.symbols[begin:end])),
            positions=tuple(tuple(row) for row in read.positions[begin:end].tolist()),
        )
        for name, begin, end in ranges
    ]


def jobs_of_smiles(file: Path, level: Level) -> list[Job]:
    """One molecule per line, named by the text after the SMILES, or by its number, from 0.

    Lines that begin with # are comments. Raises UserError if the file cannot be read or is empty,
    or if a name occurs twice.
    """
    try:
        lines = [line.split(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"{file} cannot be read ({reason}): give a text file of SMILES") from error
    jobs: dict[str, Job] = {}
    for number, parts in enumerate(line for line in lines if line and not line[0].startswith("#")):
        name = parts[1].strip() if len(parts) > 1 else f"molecule_{number:06d}"
        if name in jobs:
            raise UserError(f"{file} names two molecules {name}: give each a name of its own")
        jobs[name] = Job(name, level, smiles=parts[0])
    if not jobs:
        raise UserError(f"{file} is empty: write a SMILES a line")
    return list(jobs.values())
