"""What the data modules of couplings share: graphs, a split by molecule, and a vocabulary."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.data.loading import BatchLoader
from equipoise.data.module import (
    SPLITS,
    SplitDataModule,
    SplitName,
    check_fraction,
    on_gpu,
    refuse_below,
    shard_of,
)
from equipoise.data.molecules.batches import MoleculeBatches, refuse_cut_pairs
from equipoise.data.molecules.graphs import MoleculeGraphs
from equipoise.data.molecules.preparation import named
from equipoise.data.molecules.tables import TYPES
from equipoise.data.molecules.vocabulary import Vocabulary
from equipoise.data.sampling import LengthBuckets
from equipoise.errors import UserError

PUBLISHED_END = 0.8
"""Validation ends at this fraction of the shuffled molecules, as published."""


@dataclass(kw_only=True, eq=False)
class MoleculeDataModule(SplitDataModule, ABC):
    """Couplings in molecules, in batches of molecules of similar size (`MoleculeBatches`).

    contributions: whether a coupling comes with its four contributions. val_fraction,
    test_fraction: of the molecules; if the latter is 0, test is validation. split_seed: shuffles
    the molecules before they are divided; it is separate from `seed`, so that runs with other seeds
    hold out the same ones. max_pairs: per molecule; bonded and predicted pairs first, then the
    nearest. rare: labels with fewer training couplings are merged into their plain type.
    atom_types, pair_types, triplet_types, quad_types: how many labels each level has at each depth;
    None: as many as the data have.
    """

    contributions: bool = False
    val_fraction: float
    test_fraction: float
    split_seed: int = 0
    max_pairs: int = 250
    rare: int = 10
    atom_types: Sequence[int] | None = None
    pair_types: Sequence[int] | None = None
    triplet_types: Sequence[int] | None = None
    quad_types: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        refuse_below(self, 0, "split_seed")
        refuse_below(self, 1, "max_pairs", "rare")
        check_fraction("val_fraction", self.val_fraction)
        check_fraction("test_fraction", self.test_fraction)
        if self.val_fraction == 0:
            raise UserError(
                "task.val_fraction is 0: set it above 0, for validation needs molecules."
            )
        if self.val_fraction + self.test_fraction >= 1:
            raise UserError(
                f"task.val_fraction={self.val_fraction} and task.test_fraction="
                f"{self.test_fraction} leave nothing to train on: lower one of them."
            )
        self._graphs: MoleculeGraphs | None = None
        self._vocabulary: Vocabulary | None = None
        self._told = False

    @abstractmethod
    def read_graphs(self) -> MoleculeGraphs:
        """All molecules; raises UserError if they are not available."""

    @property
    def graphs(self) -> MoleculeGraphs:
        """All molecules, read when they are first needed."""
        if self._graphs is None:
            self._graphs = self.read_graphs()
        return self._graphs

    @property
    def vocabulary(self) -> Vocabulary:
        """The labels of the training molecules, and the scales of their couplings."""
        if self._vocabulary is None:
            self._vocabulary = Vocabulary.of(self.graphs, self.molecules("train"), self.rare)
        return self._vocabulary

    @property
    def types_seen(self) -> tuple[str, ...]:
        """The types of coupling that the training molecules have."""
        return self.vocabulary.types

    def molecules(self, name: SplitName) -> NDArray[np.int64]:
        """The rows of a split among `graphs`. Raises UserError if it has none."""
        parts = split(
            len(self.graphs), self.split_seed, val=self.val_fraction, test=self.test_fraction
        )
        if not len(parts[name]):
            raise UserError(
                f"{len(self.graphs)} molecules are too few for task.val_fraction="
                f"{self.val_fraction} and task.test_fraction={self.test_fraction}: no molecule is "
                f"left for {name}; give more of them, or change the fractions."
            )
        return parts[name]

    def inspect(self) -> dict[str, Any]:
        """Read or compute the graphs, and return how many labels each level has.

        Raises UserError if these numbers differ from the configuration's (for example a
        checkpoint's), a split has no molecules, or a molecule has too many pairs that must be kept.
        """
        for name in SPLITS:
            refuse_cut_pairs(self.graphs, self.molecules(name), self.max_pairs)
        sizes = self.vocabulary.sizes
        _refuse_other_sizes(
            self, sizes, "task", "give the same data, split and task.rare, or set them to null"
        )
        return sizes

    def check_model(self, model: object) -> None:
        """Raise UserError if the network is made for other numbers of labels."""
        _refuse_other_sizes(
            model, self.vocabulary.sizes, "the model", "give the data that it was trained on"
        )

    def setup(self, stage: str | None = None) -> None:
        """Read the splits of a stage, and warn of anything odd about the molecules."""
        self.inspect()
        super().setup(stage)
        if not self._told and shard_of(self).rank == 0:
            self._warn()
            self._told = True

    def read_split(self, name: SplitName) -> MoleculeBatches:
        """The molecules of a split."""
        return MoleculeBatches(self.graphs, self.molecules(name), self.vocabulary, self.max_pairs)

    def train_dataloader(self) -> BatchLoader:
        """The training batches, shuffled, or in a fixed order for `overfit_batches`."""
        fixed = getattr(self.trainer, "overfit_batches", 0) > 0
        return self._buckets("train", self.batch_size, None if fixed else self.seed)

    def vocabulary_state(self) -> dict[str, Any]:
        """The vocabulary as plain values, for the checkpoint."""
        return self.vocabulary.state()

    def type_means(self) -> list[float]:
        """The mean coupling of each of TYPES in training, Hz; nan where there is none."""
        columns = self.graphs.level("pair").columns
        own = self.graphs.items_of("pair", self.molecules("train"))
        kinds, couplings = columns["type"][own], columns["coupling"][own, 0]
        parts = [couplings[kinds == kind] for kind in range(1, 1 + len(TYPES))]
        return [float(part.mean(dtype=float)) if len(part) else math.nan for part in parts]

    def facts(self, name: SplitName) -> dict[str, Any]:
        """Notes about a split beside its result."""
        molecules = self.molecules(name)
        return {
            "molecules": len(molecules),
            "couplings": self._couplings(molecules),
            "bonds_by_radii": int(self.graphs.by_radii[molecules].sum()),
        }

    def _couplings(self, molecules: NDArray[np.int64]) -> dict[str, int]:
        """How many couplings of each type some molecules have."""
        types = self.graphs.level("pair").columns["type"][self.graphs.items_of("pair", molecules)]
        counts = np.bincount(types, minlength=1 + len(TYPES))[1:]
        return dict(zip(TYPES, counts.tolist(), strict=True))

    def _warn(self) -> None:
        names = self.graphs.names
        odd = [name for name, by in zip(names, self.graphs.by_radii, strict=True) if by]
        if odd:
            question = " (are the positions in Angstrom?)" if 2 * len(odd) > len(names) else ""
            warnings.warn(
                f"the bonds of {len(odd)} of {len(names):,} molecules could not be perceived "
                f"and follow from covalent radii alone{question}: {named(odd)}",
                stacklevel=3,
            )
        held_out: tuple[SplitName, ...] = ("val", "test") if self.test_fraction else ("val",)
        for split_name in held_out:
            counts = self._couplings(self.molecules(split_name))
            unseen = [f"{n:,} of {t}" for t, n in counts.items() if n and t not in self.types_seen]
            if unseen:
                warnings.warn(
                    f"the {split_name} molecules have couplings of types that training has none "
                    f"of, which are predicted as 0: {', '.join(unseen)}",
                    stacklevel=3,
                )

    def _evaluation_loader(self, name: SplitName) -> BatchLoader:
        return self._buckets(name, self.eval_batch_size or self.batch_size, None)

    def _buckets(self, name: SplitName, batch_size: int, seed: int | None) -> BatchLoader:
        content = self.splits[name]
        assert isinstance(content, MoleculeBatches)
        lengths = content.lengths
        indices = LengthBuckets(
            lengths, batch_size=batch_size, batch_tokens=batch_size * int(lengths.max()),
            seed=seed, shard=shard_of(self),
        )  # fmt: skip
        return BatchLoader(
            content, indices, seed=self.seed, num_workers=self.num_workers, pin_memory=on_gpu(self)
        )


def split(count: int, seed: int, *, val: float, test: float) -> dict[SplitName, NDArray[np.int64]]:
    """Divide `count` molecules, a pure function of the arguments.

    As published, they are shuffled by NumPy's RandomState, and the part from 0.6 to 0.8 is for
    validation; here it is the `val` molecules that end at 0.8. The `test` molecules precede them,
    wrapping around to the end of the order; with test=0 they are those for validation.
    """
    shuffled = np.random.RandomState(seed).permutation(count)
    end = int(PUBLISHED_END * count)
    validation = end - math.floor(round(PUBLISHED_END - val, 12) * count)
    order = np.roll(shuffled, -end)  # now validation stands last
    first = count - validation
    last = first - math.floor(round(test * count, 9))
    held_out = order[last:first] if test else order[first:]
    return {"train": order[:last], "val": order[first:], "test": held_out}


def _refuse_other_sizes(
    settings: object, sizes: Mapping[str, Sequence[int]], owner: str, advice: str
) -> None:
    for name, size in sizes.items():
        wanted = getattr(settings, name, None)
        if wanted is not None and list(wanted) != list(size):
            raise UserError(
                f"{owner} has {name}={list(wanted)}, but the training molecules have {list(size)} "
                f"different labels: {advice}."
            )
