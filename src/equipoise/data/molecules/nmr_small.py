"""Couplings of 312 small molecules, bundled: see `pcj0/README.md`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from equipoise.data.molecules.graphs import MoleculeGraphs
from equipoise.data.molecules.module import MoleculeDataModule
from equipoise.data.molecules.preparation import CouplingFiles, prepared


@dataclass(kw_only=True, eq=False)
class NmrSmall(MoleculeDataModule):
    """6,657 couplings in molecules of up to five atoms of C, N, O and F, and their hydrogens."""

    batch_size: int = 16
    val_fraction: float = 0.1
    test_fraction: float = 0.2

    def read_graphs(self) -> MoleculeGraphs:
        """All molecules."""
        return bundled(self.contributions)


@lru_cache(maxsize=2)
def bundled(contributions: bool) -> MoleculeGraphs:
    """The graphs of the bundled files, which take less than a second."""
    parts = folder() / "scalar_coupling_contributions.csv"
    return prepared(
        CouplingFiles(
            folder() / "structures.csv", folder() / "train.csv", parts if contributions else None
        )
    )


def folder() -> Path:
    """Where the bundled files lie."""
    return Path(__file__).parent / "pcj0"
