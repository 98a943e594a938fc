"""Some molecules that come with the package: geometries and couplings, and here their SMILES."""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.data.molecules.couplings import COUPLING
from equipoise.data.molecules.tables import CONTRIBUTIONS

SMILES = Path(__file__).with_name("smiles.csv")
FOLDER = files("equipoise.data.molecules").joinpath("pcj0")


class Bundled(NamedTuple):
    smiles: str
    symbols: tuple[str, ...]
    positions: NDArray[np.float64]
    pairs: list[tuple[int, int, str]]
    contributions: NDArray[np.float64]
    total: NDArray[np.float64]


def rows(text: str) -> dict[str, list[dict[str, str]]]:
    """The rows of each molecule."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(text.splitlines()):
        found.setdefault(row["molecule_name"], []).append(row)
    return found


@lru_cache(maxsize=1)
def molecules() -> dict[str, Bundled]:
    """By SMILES."""
    atoms, couplings, parts = (
        rows(FOLDER.joinpath(f"{table}.csv").read_text())
        for table in ("structures", "train", "scalar_coupling_contributions")
    )
    return {
        row["smiles"]: Bundled(
            row["smiles"],
            tuple(atom["atom"] for atom in atoms[name]),
            np.array([[float(atom[axis]) for axis in "xyz"] for atom in atoms[name]]),
            [(int(c["atom_index_0"]), int(c["atom_index_1"]), c["type"]) for c in couplings[name]],
            np.array([[float(part[kind]) for kind in CONTRIBUTIONS] for part in parts[name]]),
            np.array([float(c[COUPLING]) for c in couplings[name]]),
        )
        for name, (row,) in rows(SMILES.read_text()).items()
    }
