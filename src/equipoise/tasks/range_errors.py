"""The errors of the answers to range queries, and the data for the report's pictures of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from equipoise.privacy import RangeEstimate, TreeEstimate

Floats = NDArray[np.float64]


SQUARES = 64  # along each side of the picture of two attributes


class RangeErrors:
    """Answers of several surveys to the same queries, and their errors.

    A query has a volume, which is nan if its ends are random. Errors are means over the queries;
    their standard errors are over the surveys, and None if there is a single survey.
    """

    def __init__(self) -> None:
        self.ranges: list[NDArray[np.int64]] = []
        self.truth: list[Floats] = []
        self.volume: list[Floats] = []
        self.answers: list[Floats] = []

    def add(self, batch: dict[str, Tensor], estimates: Sequence[RangeEstimate]) -> None:
        """Answer the ranges (n, attributes, 2) of a batch, whose truth and volume are (n,)."""
        ranges = batch["ranges"].numpy()
        self.ranges.append(ranges)
        self.truth.append(batch["truth"].numpy())
        self.volume.append(batch["volume"].numpy())
        self.answers.append(np.stack([estimate.answer(ranges) for estimate in estimates]))

    def differences(self) -> Floats:
        """(surveys, queries) answer minus truth."""
        return np.concatenate(self.answers, axis=1) - np.concatenate(self.truth)

    def means(self) -> dict[str, float]:
        """mse and mae over the ranges with random ends."""
        errors = self.differences()[:, np.isnan(np.concatenate(self.volume))]
        return {"mse": float((errors**2).mean()), "mae": float(np.abs(errors).mean())}

    def details(self) -> dict[str, Any]:
        """mse and mae for each volume, and the standard errors of these and of `means`."""
        if not self.answers:
            return {}
        errors, volume = self.differences(), np.concatenate(self.volume)
        random = np.isnan(volume)
        measures = {"mse": errors**2, "mae": np.abs(errors)}
        entries: dict[str, Any] = {
            "standard_error": {k: deviation(m[:, random]) for k, m in measures.items()}
        }
        volumes = [float(v) for v in dict.fromkeys(volume[~random].tolist())]
        for name, measure in measures.items():
            by_volume = {f"{v:g}": measure[:, volume == v] for v in volumes}
            entries[f"{name}_by_volume"] = {k: float(part.mean()) for k, part in by_volume.items()}
            entries[f"{name}_by_volume_standard_error"] = {
                k: deviation(part) for k, part in by_volume.items()
            }
        return entries


def deviation(measure: Floats) -> float | None:
    """Standard error of the mean of `measure` (surveys, queries), over the surveys."""
    means = measure.mean(axis=1)
    return None if len(means) < 2 else float(means.std(ddof=1) / np.sqrt(len(means)))


def range_samples(estimate: RangeEstimate, errors: RangeErrors, people: Any) -> dict[str, Any]:
    """The first survey's estimate beside the truth, and the errors of all surveys.

    columns; histograms and marginals: for each attribute the true and estimated fractions of its
    values, (domain[a],); grid: for two attributes their true and estimated fractions, (64, 64);
    tree: low and high (nodes, attributes), depth and value (nodes,), or None without a tree; truth,
    answer and standard_error (queries,): of the first survey, the last None if its method has none;
    volume (queries,): the fraction of the domain that each query covers; fixed (queries,): whether
    its volume was chosen; error (surveys, queries).
    """
    ranges = np.concatenate(errors.ranges)
    domain = np.array(people.domain)
    return {
        "columns": people.columns,
        "histograms": [
            np.bincount(people.values[:, a], minlength=size) / len(people)
            for a, size in enumerate(people.domain)
        ],
        "marginals": [estimate.marginal(a) for a in range(len(people.domain))],
        "grid": squares(estimate, people) if len(people.domain) == 2 else None,
        "tree": tree_of(estimate),
        "truth": np.concatenate(errors.truth),
        "answer": np.concatenate(errors.answers, axis=1)[0],
        "standard_error": estimate.standard_error(ranges),
        "volume": ((ranges[..., 1] - ranges[..., 0]) / domain).prod(axis=1),
        "fixed": ~np.isnan(np.concatenate(errors.volume)),
        "error": errors.differences(),
    }


def squares(estimate: RangeEstimate, people: Any) -> tuple[Floats, Floats]:
    """True and estimated fractions in at most 64 x 64 boxes of two attributes."""
    cuts = [np.unique(np.linspace(0, size, SQUARES + 1).astype(np.int64)) for size in people.domain]
    true, _, _ = np.histogram2d(people.values[:, 0], people.values[:, 1], bins=cuts)
    rows, columns = (np.stack((cut[:-1], cut[1:]), axis=1) for cut in cuts)
    boxes = [[row, column] for row in rows for column in columns]
    return true / len(people), estimate.answer(boxes).reshape(len(rows), len(columns))


def tree_of(estimate: RangeEstimate) -> dict[str, NDArray] | None:
    """The nodes of a tree and their frequencies; None for an estimate without a tree."""
    if not isinstance(estimate, TreeEstimate):
        return None
    tree = estimate.tree
    return {"low": tree.low, "high": tree.high, "depth": tree.depth, "value": estimate.values}
