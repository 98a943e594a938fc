"""The labels seen in training, as numbers for the network, and the scales of couplings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.data.molecules.graphs import LEVELS, MoleculeGraphs
from equipoise.data.molecules.tables import TYPES

LABELLED = ("pair", 1)
"""Level and depth of the labels that each have a head of the network and a scale."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Sorted labels of each level and depth; their ids count from 1, and 0 is an unknown one.

    mean, deviation: of the couplings of each pair label, K numbers in Hz. usual: for each coupling
    type in training, the label used for surroundings that training lacks: the bare type, or if all
    labels have surroundings, the most frequent.
    """

    labels: Mapping[str, tuple[tuple[str, ...], ...]]
    mean: Mapping[str, tuple[float, ...]]
    deviation: Mapping[str, tuple[float, ...]]
    usual: Mapping[str, str]

    @staticmethod
    def of(graphs: MoleculeGraphs, molecules: NDArray[np.int64], rare: int) -> Vocabulary:
        """The vocabulary of the training molecules, given by their rows.

        Labels of fewer than `rare` couplings are merged into the bare type.
        """
        labels: dict[str, tuple[tuple[str, ...], ...]] = {}
        for name in LEVELS:
            level, seen = graphs.level(name), graphs.items_of(name, molecules)
            codes = level.columns["label"][seen]
            labels[name] = tuple(
                tuple(names[code] for code in np.flatnonzero(np.bincount(codes[:, depth])))
                for depth, names in enumerate(level.labels)
            )
        scales = _Scales.of(graphs, molecules, rare)
        kinds, labelled, finest = labels["pair"]
        plain = [label for label in labelled if label.split("_")[0] not in TYPES]
        labels["pair"] = (kinds, tuple(sorted([*plain, *scales.mean])), finest)
        return Vocabulary(labels, scales.mean, scales.deviation, scales.usual)

    @property
    def sizes(self) -> dict[str, list[int]]:
        """How many labels each level has at each depth, without the unknown one."""
        return {f"{name}_types": list(map(len, self.labels[name])) for name in LEVELS}

    @property
    def types(self) -> tuple[str, ...]:
        """The types of coupling that training has."""
        return tuple(name for name in TYPES if name in self.usual)

    def ids(self, level: str, depth: int, names: tuple[str, ...]) -> NDArray[np.int64]:
        """The id of each name, 0 if it is unknown."""
        places = {name: 1 + place for place, name in enumerate(self.labels[level][depth])}
        if (level, depth) == LABELLED:
            names = tuple(self.label(name) for name in names)
        return np.array([places.get(name, 0) for name in names], dtype=np.int64)

    def label(self, name: str) -> str:
        """The pair label to use for `name`: itself if known, else the usual one of its type."""
        return name if name in self.mean else self.usual.get(name.split("_")[0], name)

    def scales(self) -> NDArray[np.float32]:
        """Mean and deviation (2, n + 1, K) for each label id: 0 and 1 for labels without them."""
        level, depth = LABELLED
        names = self.labels[level][depth]
        targets = len(next(iter(self.mean.values()), (0.0,)))
        table = np.zeros((2, 1 + len(names), targets), dtype=np.float32)
        table[1] = 1
        for place, name in enumerate(names, start=1):
            if name in self.mean:
                table[:, place] = self.mean[name], self.deviation[name]
        return table

    def state(self) -> dict[str, Any]:
        """All of it as strings, numbers and lists, for a checkpoint."""
        return {
            "labels": {name: list(map(list, depths)) for name, depths in self.labels.items()},
            "mean": {name: list(values) for name, values in self.mean.items()},
            "deviation": {name: list(values) for name, values in self.deviation.items()},
            "usual": dict(self.usual),
        }


def vocabulary_from_state(state: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary of a checkpoint."""
    return Vocabulary(
        {name: tuple(map(tuple, depths)) for name, depths in state["labels"].items()},
        {name: tuple(values) for name, values in state["mean"].items()},
        {name: tuple(values) for name, values in state["deviation"].items()},
        dict(state["usual"]),
    )


@dataclass(frozen=True, eq=False)
class _Scales:
    """Mean and deviation of each label, and the usual label of each type."""

    mean: dict[str, tuple[float, ...]]
    deviation: dict[str, tuple[float, ...]]
    usual: dict[str, str]

    @staticmethod
    def of(graphs: MoleculeGraphs, molecules: NDArray[np.int64], rare: int) -> _Scales:
        pairs = graphs.level("pair")
        coupled = graphs.items_of("pair", molecules) & (pairs.columns["type"] > 0)
        values = pairs.columns["coupling"][coupled].astype(np.float64)
        codes, counts = np.unique(pairs.columns["label"][coupled, 1], return_counts=True)
        found = [pairs.labels[1][code] for code in codes]
        kept = [
            name if count >= rare else name.split("_")[0]
            for name, count in zip(found, counts, strict=True)
        ]
        groups = sorted(set(kept))
        table = np.zeros(len(pairs.labels[1]), dtype=np.int64)
        table[codes] = [groups.index(name) for name in kept]
        group = table[pairs.columns["label"][coupled, 1]]
        of_type = {
            name: values[pairs.columns["type"][coupled] == 1 + place]
            for place, name in enumerate(TYPES)
        }
        parts = {name: values[group == place] for place, name in enumerate(groups)}
        deviation = {
            name: tuple(_deviation(part, of_type[name.split("_")[0]]))
            for name, part in parts.items()
        }
        mean = {name: tuple(map(float, part.mean(axis=0))) for name, part in parts.items()}
        return _Scales(mean, deviation, _usual({name: len(part) for name, part in parts.items()}))


def _deviation(values: NDArray[np.float64], of_type: NDArray[np.float64]) -> list[float]:
    """The sample deviation of each column; if it is undefined or 0, the type's, and then 1."""
    found = []
    for column, whole in zip(values.T, of_type.T, strict=True):
        choices = [float(part.std(ddof=1)) for part in (column, whole) if len(part) > 1]
        found.append(next((choice for choice in choices if choice > 0), 1.0))
    return found


def _usual(counts: Mapping[str, int]) -> dict[str, str]:
    usual = {}
    for name in TYPES:
        of_type = [label for label in counts if label.split("_")[0] == name]
        if of_type:
            usual[name] = name if name in of_type else max(of_type, key=lambda one: counts[one])
    return usual
