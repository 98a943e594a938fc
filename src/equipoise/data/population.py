"""People and their values, as a survey finds them: what its answers are compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Limits = list[float]
MOST_CELLS = 1 << 24


@dataclass(frozen=True)
class Population:
    """values: int64 (people, attributes), each within 0 to below its entry of `domain`.

    columns: the attributes' names. limits: for an attribute that was binned the numbers at the two
    ends of its domain, None for one that counts by itself.
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
