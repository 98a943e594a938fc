"""The couplings of the CHAMPS competition (Kaggle 2019), or others in its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.data.folders import expanded, local_folder, required_path, within
from equipoise.data.module import SplitName
from equipoise.data.molecules.graphs import MoleculeGraphs
from equipoise.data.molecules.module import MoleculeDataModule
from equipoise.data.molecules.preparation import CouplingFiles, stored_or_prepared
from equipoise.errors import UserError

OF_THE_COMPETITION = "dsgdb9nsd_"
"""The prefix of the names of its molecules, which are those of QM9."""
ADVICE = (
    "fetch structures.csv and train.csv of the competition champs-scalar-coupling from Kaggle, and "
    "set task.path to their folder"
)


@dataclass(kw_only=True, eq=False)
class Champs(MoleculeDataModule):
    """The folder `path` with structures.csv and train.csv; scalar_coupling_contributions.csv too.

    The last is read only if contributions=True; test.csv has no couplings, so a trained model
    predicts it afterwards. Features are kept for later runs in `cache_dir`; None: in a hidden
    folder beside the files, or if that is read-only, among the user's cached files.
    """

    path: str | None = None
    batch_size: int = 48
    val_fraction: float = 0.2
    test_fraction: float = 0.0
    cache_dir: str | None = None

    def facts(self, name: SplitName) -> dict[str, Any]:
        """Notes about a split, among them whether its molecules are those of the competition."""
        competition = self.graphs.names[0].startswith(OF_THE_COMPETITION)
        return {**super().facts(name), "competition": competition}

    def read_graphs(self) -> MoleculeGraphs:
        """The molecules of train.csv."""
        folder = local_folder(required_path(self.path, f"task=champs needs data: {ADVICE}."))
        contributions = "scalar_coupling_contributions.csv" if self.contributions else None
        names = ["structures.csv", "train.csv", *([contributions] if contributions else [])]
        for name in names:
            _refuse_absent(folder / name)
        files = CouplingFiles(
            folder / "structures.csv",
            folder / "train.csv",
            folder / contributions if contributions else None,
        )
        return stored_or_prepared(files, expanded(self.cache_dir) if self.cache_dir else None)


def _refuse_absent(file: Path) -> None:
    if within(file, file.parent).is_file():
        return
    packed = file.with_name(f"{file.name}.zip")
    if packed.is_file():
        raise UserError(f"{packed} is still packed: unpack it there.")
    if file.name.startswith("scalar"):
        raise UserError(
            f"{file.parent} has no {file.name}: add it, or set task.contributions=false."
        )
    raise UserError(f"{file.parent} has no {file.name}: {ADVICE}.")
