"""People and their values, drawn or read: the truth with which a survey's answers are compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import cauchy, laplace, norm

from equipoise.errors import UserError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Limits = list[float]
Distribution = Literal["zipf", "gaussian", "laplace", "cauchy", "bimodal", "uniform"]
MOST_CELLS = 1 << 24
DEFAULT_CELLS = 1024
ZIPF_EXPONENT = 1.1


@dataclass(frozen=True)
class Population:
    """values: int64 (people, attributes), each within 0 to below its entry of `domain`.

    columns: the attributes' names. limits: for a binned attribute the numbers at the two ends of
    its domain, None for one whose values are used directly.
    """

    values: Integers
    domain: tuple[int, ...]
    columns: tuple[str, ...]
    limits: tuple[Limits | None, ...]

    def __len__(self) -> int:
        return len(self.values)

    def fractions(self, ranges: Integers) -> Floats:
        """(n,) true fractions of the people in half-open ranges (n, attributes, 2)."""
        if math.prod(size + 1 for size in self.domain) <= MOST_CELLS:
            return self._from_sums(ranges)
        low, high = ranges[..., 0], ranges[..., 1]
        inside = [
            ((self.values >= a) & (self.values < b)).all(axis=1).mean()
            for a, b in zip(low, high, strict=True)
        ]
        return np.array(inside, dtype=np.float64)

    def counts(self) -> Integers:
        """Number of people at each value, shaped like the domain."""
        cells = np.ravel_multi_index(tuple(self.values.T), self.domain)
        return np.bincount(cells, minlength=math.prod(self.domain)).reshape(self.domain)

    def _from_sums(self, ranges: Integers) -> Floats:
        """By inclusion and exclusion on the sums over all boxes that begin at the origin."""
        sums = np.pad(self.counts(), [(1, 0)] * len(self.domain))
        for axis in range(len(self.domain)):
            sums = sums.cumsum(axis=axis)
        total = np.zeros(len(ranges), dtype=np.int64)
        for corner in np.ndindex((2,) * len(self.domain)):
            sign = (-1) ** (len(corner) - sum(corner))
            total += sign * sums[tuple(ranges[:, a, end] for a, end in enumerate(corner))]
        return total / len(self)


def cells_of(
    numbers: NDArray, name: str, size: int | None, limits: Limits | None
) -> tuple[Integers, int, Limits | None]:
    """The cells (people,), their number, and the limits if the column was binned.

    Integers are their own cells; size None: one more than the greatest. A column that has limits,
    or whose numbers mostly have a fraction, is binned into `size` (None: 1024) cells of equal
    width. Raises UserError if only a few numbers have a fraction, and for negative or too large
    values.
    """
    fractional = numbers != np.floor(numbers)
    if limits is None and not fractional.any():
        return _integers(numbers.astype(np.int64), name, size)
    if limits is None and fractional.mean() < 0.5:
        raise UserError(
            f"Column '{name}' has {int(fractional.sum())} non-integer value(s), the first "
            f"is {numbers[fractional][0]:g}: round them, or give task.limits=[[low,high]] to have "
            "the column binned"
        )
    return _binned(numbers.astype(np.float64), name, size or DEFAULT_CELLS, limits)


def _integers(values: Integers, name: str, size: int | None) -> tuple[Integers, int, Limits | None]:
    if values.min() < 0:
        raise UserError(
            f"Column '{name}' has {int((values < 0).sum())} negative value(s), the least is "
            f"{values.min()}: count from 0, or give task.limits=[[low,high]] to have the column "
            "binned"
        )
    size = int(values.max()) + 1 if size is None else size
    if size < 2:
        raise UserError(
            f"Column '{name}' holds nothing but 0, and an attribute needs 2 or more values: set "
            "task.domain to the number of values that it could have"
        )
    outside = values[values >= size]
    if len(outside):
        raise UserError(
            f"Column '{name}' has {len(outside)} value(s) outside the domain 0 to {size - 1}, the "
            f"greatest is {values.max()}: set task.domain to {values.max() + 1} or more, or drop "
            "such rows"
        )
    return values, size, None


def _binned(
    numbers: NDArray[np.float64], name: str, size: int, limits: Limits | None
) -> tuple[Integers, int, Limits | None]:
    """Cells of equal width; the upper limit itself belongs to the last cell."""
    low, high = limits or [float(numbers.min()), float(numbers.max())]
    if not low < high:
        raise UserError(f"The limits of column '{name}' must increase, got {low:g} and {high:g}")
    outside = numbers[(numbers < low) | (numbers > high)]
    if len(outside):
        raise UserError(
            f"Column '{name}' has {len(outside)} value(s) outside its limits {low:g} to {high:g}, "
            f"the first is {outside[0]:g}: widen task.limits, or drop such rows"
        )
    cells = np.floor((numbers - low) / (high - low) * size).astype(np.int64)
    return np.minimum(cells, size - 1), size, [low, high]


def draw_values(
    name: Distribution,
    users: int,
    domain: tuple[int, ...],
    correlation: float,
    generator: np.random.Generator,
) -> Integers:
    """(users, attributes) values, each attribute of the same distribution over its own domain.

    correlation: between any two of the normal variables of which the attributes are functions (a
    Gaussian copula, so Gaussian attributes have this correlation themselves). Raises UserError for
    an unknown name, and if no such correlation exists.
    """
    if name not in get_args(Distribution):
        raise UserError(
            f"task.distribution={name} is not one of {', '.join(get_args(Distribution))}"
        )
    least = -1 / (len(domain) - 1) if len(domain) > 1 else -1.0
    if not least <= correlation <= 1:
        raise UserError(
            f"task.correlation={correlation} must lie between {least:.3g} and 1 for {len(domain)} "
            "attributes"
        )
    matrix = np.full((len(domain), len(domain)), correlation)
    np.fill_diagonal(matrix, 1.0)
    normal = generator.multivariate_normal(np.zeros(len(domain)), matrix, users, method="eigh")
    quantiles = norm.cdf(normal)
    columns = [
        np.searchsorted(np.cumsum(cell_probabilities(name, size))[:-1], quantiles[:, a], "right")
        for a, size in enumerate(domain)
    ]
    return np.stack(columns, axis=1)


def _bimodal(points: Floats) -> Floats:
    return np.asarray((norm.cdf(points, 0, 0.5) + norm.cdf(points, 3, 0.8)) / 2)


CONTINUOUS: dict[str, tuple[float, float, Callable[[Floats], Floats]]] = {
    "gaussian": (-5, 5, norm.cdf),
    "laplace": (-8, 8, laplace.cdf),
    "bimodal": (-3, 7, _bimodal),
}


def cell_probabilities(name: Distribution, size: int) -> Floats:
    """(size,) probability of each cell of equal width over the distribution's range.

    Zipf with exponent 1.1 over 1 to size; N(0, 1) on (-5, 5); Laplace(0, 1) on (-8, 8); Cauchy on
    (-20, 20), without what lies outside; half N(0, 0.5^2) and half N(3, 0.8^2) on (-3, 7). Except
    for Cauchy, the end cells hold what lies beyond them.
    """
    if name == "zipf":
        weights = np.arange(1, size + 1) ** -ZIPF_EXPONENT
        return np.asarray(weights / weights.sum())
    if name == "uniform":
        return np.full(size, 1 / size)
    if name == "cauchy":
        inside = np.diff(cauchy.cdf(np.linspace(-20, 20, size + 1)))
        return np.asarray(inside / inside.sum())
    low, high, cumulative = CONTINUOUS[name]
    edges = cumulative(np.linspace(low, high, size + 1))
    edges[0], edges[-1] = 0.0, 1.0
    return np.diff(edges)
