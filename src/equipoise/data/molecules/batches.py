"""Batches of molecules: ids in place of labels, padded to the largest molecule of the batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.data.loading import Batch
from equipoise.data.molecules.graphs import LEVELS, Level, MoleculeGraphs
from equipoise.data.molecules.vocabulary import LABELLED, Vocabulary
from equipoise.data.sampling import BatchIndex
from equipoise.errors import UserError

NAMES = {
    "atom": {"position": "position", "feature": "atom_feature"},
    "pair": {
        "atoms": "pair_atoms", "squared_distance": "squared_distance", "type": "type",
        "row": "row", "coupling": "coupling",
    },
    "triplet": {"atoms": "triplet_atoms", "pairs": "triplet_pairs", "angle": "triplet_angle"},
    "quad": {
        "atoms": "quad_atoms", "pairs": "quad_pairs", "triplets": "quad_triplets",
        "angle": "quad_angle",
    },
}  # fmt: skip
"""The name that each column of a level has in a batch."""


class MoleculeBatches:
    """Some of the molecules, with labels as ids in a vocabulary.

    rows: int64 (N,), the places of the molecules among `graphs`. A batch of B of them is padded to
    A atoms, P pairs, T triplets and Q quads, at least 1 of each:

    - atom int64 (B, A, 3), the ids of its labels, 0 where padded or unknown; position float32
      (B, A, 3), Angstrom; atom_feature float32 (B, A, 2), the angle between the two nearest atoms
      over pi, and the charge; atom_present bool (B, A);
    - pair int64 (B, P, 3); pair_atoms int64 (B, P, 2); squared_distance float32 (B, P);
      pair_present bool (B, P); type int64 (B, P), 0 where nothing is to be predicted; row int64
      (B, P), the id of the coupling or -1; coupling, mean, deviation float32 (B, P, K), Hz: 0, 0
      and 1 where nothing is to be predicted;
    - triplet int64 (B, T, 2); triplet_atoms int64 (B, T, 3); triplet_pairs int64 (B, T, 2);
      triplet_angle float32 (B, T), radians; triplet_present bool (B, T);
    - quad int64 (B, Q, 1); quad_atoms int64 (B, Q, 4); quad_pairs int64 (B, Q, 3); quad_triplets
      int64 (B, Q, 2); quad_angle float32 (B, Q), radians; quad_present bool (B, Q);
    - index int64 (B,), the row among the N.

    Only the first `max_pairs` pairs of each molecule are kept. Raises UserError if that would leave
    out a pair with a bond or a coupling.
    """

    def __init__(
        self,
        graphs: MoleculeGraphs,
        rows: NDArray[np.int64],
        vocabulary: Vocabulary,
        max_pairs: int,
    ) -> None:
        self.graphs = graphs
        self.rows = rows
        self.max_pairs = max_pairs
        refuse_cut_pairs(graphs, rows, max_pairs)
        self.ids = {
            name: [vocabulary.ids(name, depth, names) for depth, names in enumerate(level.labels)]
            for name, level in graphs.levels.items()
        }
        self.scales = vocabulary.scales()

    def __len__(self) -> int:
        """The number of molecules."""
        return len(self.rows)

    @property
    def lengths(self) -> Tensor:
        """The total number of atoms, pairs, triplets and quads of each molecule (N,)."""
        counts = [self._counts(name) for name in LEVELS]
        return torch.from_numpy(np.sum(counts, axis=0)[self.rows])

    def __getitem__(self, index: BatchIndex) -> Batch:
        """The molecules of the rows in `index`."""
        molecules = self.rows[index.rows.numpy()]
        batch: dict[str, NDArray] = {}
        for name in LEVELS:
            level = self.graphs.level(name)
            items = _Items.of(level, molecules, self._counts(name))
            codes = level.columns["label"][items.flat]
            ids = [table[code] for table, code in zip(self.ids[name], codes.T, strict=True)]
            batch[name] = items.padded(np.stack(ids, axis=1))
            batch[f"{name}_present"] = items.present
            for column, key in NAMES[name].items():
                batch[key] = items.padded(_widened(level.columns[column][items.flat]))
        batch["row"][~batch["pair_present"]] = -1
        batch["mean"], batch["deviation"] = self._scales_of(batch)
        tensors = {key: torch.from_numpy(array) for key, array in batch.items()}
        return {**tensors, "index": index.rows}

    def _scales_of(self, batch: dict[str, NDArray]) -> NDArray[np.float32]:
        level, depth = LABELLED
        return self.scales[:, np.where(batch["type"] > 0, batch[level][..., depth], 0)]

    def _counts(self, name: str) -> NDArray[np.int64]:
        counts = self.graphs.level(name).counts
        return np.minimum(counts, self.max_pairs) if name == "pair" else counts


class _Items(NamedTuple):
    """The items of a batch. present: bool (B, most). flat: int64, their rows in the level."""

    present: NDArray[np.bool_]
    flat: NDArray[np.int64]

    @staticmethod
    def of(level: Level, molecules: NDArray[np.int64], counts: NDArray[np.int64]) -> _Items:
        """The first `counts` (M,) items of the molecules (B,)."""
        wanted = counts[molecules][:, None]
        places = np.arange(max(int(wanted.max(initial=0)), 1))
        present = places < wanted
        return _Items(present, (level.starts[molecules][:, None] + places)[present])

    def padded(self, values: NDArray) -> NDArray:
        """Values (n, ...) of the items as (B, most, ...), 0 for padding."""
        array = np.zeros((*self.present.shape, *values.shape[1:]), dtype=values.dtype)
        array[self.present] = values
        return array


def _widened(values: NDArray) -> NDArray:
    """Indices as int64, which torch indexes with."""
    return values.astype(np.int64) if values.dtype == np.int32 else values


def refuse_cut_pairs(graphs: MoleculeGraphs, rows: NDArray[np.int64], max_pairs: int) -> None:
    """Raise UserError if a molecule has more real pairs than are kept: they come first."""
    pairs = graphs.level("pair")
    before = np.concatenate([[0], np.asarray(pairs.columns["real"]).cumsum()])
    real = (before[pairs.starts[1:]] - before[pairs.starts[:-1]])[rows]
    if real.max(initial=0) > max_pairs:
        row = int(real.argmax())
        raise UserError(
            f"{graphs.names[rows[row]]} has {real[row]} pairs of atoms with a bond or a coupling, "
            f"more than max_pairs={max_pairs}: raise that to {real[row]} or more."
        )
