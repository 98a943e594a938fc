"""What the report draws of a finished survey."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy import RangeEstimate, TreeEstimate
from equipoise.tasks.range_errors import RangeErrors

Floats = NDArray[np.float64]
SQUARES = 64  # of a side of the picture of two attributes


def range_samples(estimate: RangeEstimate, errors: RangeErrors, people: Any) -> dict[str, Any]:
    """The first survey's estimate beside the truth, and the errors of all surveys.

    columns; histograms and marginals: for each attribute (domain[a],) true and estimated fractions
    of its values; grid: for two attributes their true and estimated (64, 64) fractions; tree: low,
    high (nodes, attributes), depth and value (nodes,) where there is one; truth, answer,
    standard_error (queries,) of the first survey, the last None where its method tells none;
    volume (queries,), the part of the domain that each covers, fixed (queries,) whether it was
    chosen, and error (surveys, queries).
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
    """The nodes of a tree and their frequencies."""
    if not isinstance(estimate, TreeEstimate):
        return None
    tree = estimate.tree
    return {"low": tree.low, "high": tree.high, "depth": tree.depth, "value": estimate.values}
