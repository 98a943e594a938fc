"""The distributions and queries of the tables, and errors of a method on them."""

from __future__ import annotations

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
    table = values[:, None] if values.ndim == 1 else values
    inside = [((table >= box[:, 0]) & (table < box[:, 1])).all(axis=1).mean() for box in ranges]
    return np.array(inside)


def squared_errors(
    mechanism: Mechanism,
    values: Values,
    domain: tuple[int, ...],
    epsilon: float,
    ranges: Values,
    repeats: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """(repeats,) mean squared error over the ranges."""
    truth = true_fractions(values, ranges)
    errors = []
    for _ in range(repeats):
        estimate = simulate_counts(
            mechanism.survey(domain, epsilon, len(values)), values, generator
        )
        errors.append(float(((estimate.answer(ranges) - truth) ** 2).mean()))
    return np.array(errors)
