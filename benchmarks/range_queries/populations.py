"""The distributions and queries of the tables, and errors of a method on them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy import Mechanism, simulate_counts

Values = NDArray[np.int64]
NON_UNIFORM = ("zipf", "gaussian", "laplace", "cauchy", "bimodal")
CORRELATION = np.array([[1.0, 0.8], [0.8, 1.0]])
DISTRIBUTIONS = (*NON_UNIFORM, "uniform")


def binned(draws: NDArray[np.float64], low: float, high: float, size: int) -> Values:
    """Cells of equal width; draws outside the range are clipped into it."""
    cells = ((draws - low) / (high - low) * size).astype(np.int64)
    return np.clip(cells, 0, size - 1)


def population(name: str, users: int, size: int, generator: np.random.Generator) -> Values:
    if name == "zipf":
        weights = np.arange(1, size + 1) ** -1.1
        return generator.choice(size, users, p=weights / weights.sum())
    if name == "gaussian":
        return binned(generator.normal(size=users), -5, 5, size)
    if name == "laplace":
        return binned(generator.laplace(size=users), -8, 8, size)
    if name == "cauchy":
        draws = generator.standard_cauchy(2 * users)
        return binned(draws[np.abs(draws) < 20][:users], -20, 20, size)
    if name == "bimodal":
        first = generator.random(users) < 0.5
        left, right = generator.normal(0, 0.5, users), generator.normal(3, 0.8, users)
        return binned(np.where(first, left, right), -3, 7, size)
    return generator.integers(0, size, users)


def two_attributes(name: str, users: int, size: int, generator: np.random.Generator) -> Values:
    """Gaussian of correlation 0.8; "laplace" is the same with an exponential squared scale."""
    draws = generator.multivariate_normal(np.zeros(2), CORRELATION, users)
    if name == "gaussian":
        return binned(draws, -5, 5, size)
    return binned(draws * np.sqrt(generator.exponential(size=(users, 1))), -8, 8, size)


def random_ranges(count: int, size: int, attributes: int, generator: np.random.Generator) -> Values:
    """(count, attributes, 2): two uniform end points, half-open."""
    return np.sort(generator.integers(0, size + 1, (count, attributes, 2)), axis=2)


def half_ranges(size: int) -> Values:
    """(size - size // 2 + 1, 1, 2): every range over half of the domain."""
    low = np.arange(size - size // 2 + 1)
    return np.stack((low, low + size // 2), axis=1)[:, None]


def true_fractions(values: Values, ranges: Values) -> NDArray[np.float64]:
    """(queries,) the fraction of the people inside each range (attributes, 2)."""
    columns = values[None] if values.ndim == 1 else np.ascontiguousarray(values.T)
    return np.array([inside(columns, box).mean() for box in ranges])


def inside(columns: Values, box: Values) -> NDArray[np.bool_]:
    """(users,) whether every attribute's value is in its range."""
    marks = np.ones(columns.shape[1], dtype=bool)
    for column, (low, high) in zip(columns, box, strict=True):
        marks &= (column >= low) & (column < high)
    return marks


@dataclass(frozen=True)
class Study:
    """People, values (users,) or (users, attributes), and the ranges that are asked about."""

    values: Values
    domain: tuple[int, ...]
    ranges: Values

    @cached_property
    def truth(self) -> NDArray[np.float64]:
        return true_fractions(self.values, self.ranges)

    def squared_errors(
        self, mechanism: Mechanism, epsilon: float, repeats: int, generator: np.random.Generator
    ) -> NDArray[np.float64]:
        """(repeats,) mean squared error over the ranges, of one survey each."""
        errors = []
        for _ in range(repeats):
            survey = mechanism.survey(self.domain, epsilon, len(self.values))
            answers = simulate_counts(survey, self.values, generator).answer(self.ranges)
            errors.append(float(((answers - self.truth) ** 2).mean()))
        return np.array(errors)
