"""How far the answers to range queries are from the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from equipoise.privacy import RangeEstimate

Floats = NDArray[np.float64]


class RangeErrors:
    """Answers of several surveys to the same queries, and their errors.

    A query has a volume, or, where its ends are random, not a number. Errors are means over the
    queries; their standard errors are over the surveys, none where there is a single one.
    """

    def __init__(self) -> None:
        self.ranges: list[NDArray[np.int64]] = []
        self.truth: list[Floats] = []
        self.volume: list[Floats] = []
        self.answers: list[Floats] = []

    def add(self, batch: dict[str, Tensor], estimates: Sequence[RangeEstimate]) -> None:
        """Answer ranges (n, attributes, 2), whose truth and volume are (n,)."""
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
        """The same for each volume, and the standard errors of all of them."""
        if not self.answers:
            return {}
        errors, volume = self.differences(), np.concatenate(self.volume)
        random = np.isnan(volume)
        measures = {"mse": errors**2, "mae": np.abs(errors)}
        told: dict[str, Any] = {
            "standard_error": {k: deviation(m[:, random]) for k, m in measures.items()}
        }
        volumes = [float(v) for v in dict.fromkeys(volume[~random].tolist())]
        for name, measure in measures.items():
            by_volume = {f"{v:g}": measure[:, volume == v] for v in volumes}
            told[f"{name}_by_volume"] = {k: float(part.mean()) for k, part in by_volume.items()}
            told[f"{name}_by_volume_standard_error"] = {
                k: deviation(part) for k, part in by_volume.items()
            }
        return told


def deviation(measure: Floats) -> float | None:
    """Standard error of the mean of `measure` (surveys, queries), over the surveys."""
    means = measure.mean(axis=1)
    return None if len(means) < 2 else float(means.std(ddof=1) / np.sqrt(len(means)))
