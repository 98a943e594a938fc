"""Couplings of 312 small molecules, bundled: computed for this project, as `pcj0/README.md` says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files

from equipoise.data.molecules.graphs import MoleculeGraphs
from equipoise.data.molecules.module import MoleculeDataModule
from equipoise.data.molecules.preparation import CouplingFiles, prepared


@dataclass(kw_only=True, eq=False)
class NmrSmall(MoleculeDataModule):
    """6,657 couplings of molecules with up to five atoms of carbon, nitrogen, oxygen or fluorine."""

    batch_size: int = 16
    val_fraction: float = 0.1
    test_fraction: float = 0.2

    def read_graphs(self) -> MoleculeGraphs:
        """All molecules."""
        return bundled(self.contributions)


@lru_cache(maxsize=2)
def bundled(contributions: bool) -> MoleculeGraphs:
    """The graphs of the bundled files, which take less than a second."""
    with as_file(files("equipoise.data.molecules").joinpath("pcj0")) as folder:
        parts = folder / "scalar_coupling_contributions.csv"
        return prepared(
            CouplingFiles(
                folder / "structures.csv", folder / "train.csv", parts if contributions else None
            )
        )
