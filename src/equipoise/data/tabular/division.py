"""Classes from labels, and which rows are for training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from equipoise.data.module import SplitName
from equipoise.data.sampling import stratified_split, stream
from equipoise.data.tabular.libsvm import LabelledRows
from equipoise.data.tabular.tables import TableRows
from equipoise.errors import UserError

Rows = NDArray[np.int64]

FEWEST = 3  # rows that a class needs to be divided: one for each split
MOST_FRACTIONAL = 20  # distinct labels, if some are not integers; more are measurements
PURPOSES: dict[SplitName, int] = {"train": 0, "val": 1, "test": 2}


class Division(NamedTuple):
    """The names of the classes in the order of their numbers, and the rows of each split."""

    names: tuple[str, ...]
    splits: dict[SplitName, TableRows]


def divide(
    sources: Mapping[SplitName, LabelledRows], fractions: Mapping[SplitName, float], seed: int
) -> Division:
    """The splits: from their own sources, or else as `fractions` of the training source.

    Each class gets its share of a split to within a row. Rows are numbered through all sources.
    Raises UserError if the labels are not classes, if a class has too few rows, and if a split is
    left without rows.
    """
    training = sources["train"]
    labels = _class_labels(training, FEWEST if fractions else 1)
    targets = {name: _targets(source, labels) for name, source in sources.items()}
    drawn = _drawn(targets["train"], fractions, seed)
    _refuse_missing_classes(training, targets["train"][drawn["train"]], labels)
    splits: dict[SplitName, TableRows] = {}
    for name, rows in drawn.items():
        splits[name] = TableRows(training.features[rows], targets["train"][rows], rows)
    first = len(training.labels)
    for name in [name for name in sources if name != "train"]:
        numbers = first + np.arange(len(targets[name]))
        splits[name] = TableRows(sources[name].features, targets[name], numbers)
        first += len(numbers)
    return Division(training.names or tuple(f"{label:.12g}" for label in labels), splits)


def _class_labels(source: LabelledRows, fewest: int) -> NDArray[np.float64]:
    """The distinct labels, ascending."""
    labels, firsts, counts = np.unique(source.labels, return_index=True, return_counts=True)
    most = min(MOST_FRACTIONAL, len(source.labels) // FEWEST)
    if len(labels) > max(most, 2) and np.any(labels != np.round(labels)):
        raise UserError(
            f"{source.origin} has {len(labels)} different labels that are not all integers, as "
            "measurements are: this task classifies, so give each row the number of its class"
        )
    if len(labels) == 1:
        raise UserError(
            f"{source.origin} has only the label {labels[0]:.12g}: give it rows of another class"
        )
    rare = int(counts.argmin())
    if counts[rare] < fewest:
        raise UserError(
            f"{source.origin} has {counts[rare]} row(s) with the label {labels[rare]:.12g} "
            f"({source.place(int(firsts[rare]))}), but each class needs {fewest}: add such rows, "
            "or leave them out; what is no class but a measurement is not for this task"
        )
    return labels


def _targets(source: LabelledRows, labels: NDArray[np.float64]) -> Rows:
    """The number of each row's class; raises UserError for a label that is not among `labels`."""
    numbers = np.searchsorted(labels, source.labels).clip(max=len(labels) - 1)
    unknown = np.flatnonzero(labels[numbers] != source.labels)
    if len(unknown):
        row = int(unknown[0])
        raise UserError(
            f"{source.place(row)} has the label {source.labels[row]:.12g}, which no training row "
            "has: give training rows of that class, or leave it out"
        )
    return numbers.astype(np.int64)


def _drawn(target: Rows, fractions: Mapping[SplitName, float], seed: int) -> dict[SplitName, Rows]:
    """The rows of each part of the training source."""
    rest, left = torch.arange(len(target)), 1.0
    parts: dict[SplitName, Rows] = {}
    for name, fraction in fractions.items():
        labels = torch.from_numpy(target)[rest]
        kept, held = stratified_split(labels, fraction / left, stream(seed, PURPOSES[name]))
        if not len(held):
            raise UserError(
                f"{len(target)} rows are too few for task.{name}_fraction={fraction}: no row is "
                f"left for {name}; give more rows, or raise it"
            )
        parts[name] = rest[held].numpy()
        rest, left = rest[kept], left - fraction
    return {"train": rest.numpy(), **parts}


def _refuse_missing_classes(
    source: LabelledRows, target: Rows, labels: NDArray[np.float64]
) -> None:
    missing = np.flatnonzero(np.bincount(target, minlength=len(labels)) == 0)
    if len(missing):
        raise UserError(
            f"{source.origin} has too few rows with the label {labels[missing[0]]:.12g} for any to "
            "be left for training: lower task.val_fraction or task.test_fraction"
        )
