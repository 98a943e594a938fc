"""What is measured in each cell of a table: mean squared errors of repeated surveys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.range_queries.populations import Study
from equipoise.privacy import Mechanism

Errors = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One population and epsilon: for each method its mean squared errors, (repeats,)."""

    label: str
    epsilon: float
    errors: Mapping[str, Errors]

    def mean(self, method: str) -> float:
        return float(self.errors[method].mean())

    def standard_error(self, method: str) -> float:
        errors = self.errors[method]
        return float(errors.std(ddof=1) / np.sqrt(len(errors))) if len(errors) > 1 else 0.0

    def ratio(self, method: str, base: str) -> float:
        return self.mean(method) / self.mean(base)

    def beats(self, method: str, base: str) -> bool:
        """Whether the error is smaller, within two standard errors of the difference."""
        doubt = 2 * np.hypot(self.standard_error(method), self.standard_error(base))
        return self.mean(method) <= self.mean(base) + doubt


def measure(
    label: str,
    epsilon: float,
    mechanisms: Mapping[str, Mechanism],
    study: Study,
    repeats: int,
    generator: np.random.Generator,
) -> Cell:
    """Every method on the same people and ranges, with new noise in each repeat."""
    errors = {}
    for method, mechanism in mechanisms.items():
        number = repeats_of(mechanism, repeats)
        errors[method] = study.squared_errors(mechanism, epsilon, number, generator)
    return Cell(label, epsilon, errors)


def repeats_of(mechanism: Mechanism, repeats: int) -> int:
    """Fewer for SW, which takes up to a second a survey; one for the guess that never changes."""
    fewer = {"uniform": 1, "sw": max(2, repeats // 8)}
    return fewer.get(mechanism.name, repeats)


def geometric_mean_ratio(cells: Iterable[Cell], method: str, base: str) -> float:
    """Of the ratios of mean squared errors over the cells."""
    return float(np.exp(np.mean([np.log(cell.ratio(method, base)) for cell in cells])))
