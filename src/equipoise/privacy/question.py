"""What a round asks: which of these boxes holds your value?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.domain import Domain
from equipoise.privacy.oracles import Randomizer
from equipoise.privacy.packing import Counts

Integers = NDArray[np.int64]
_LARGEST_MAP = 1 << 22
_COMPARISONS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Question:
    """Boxes low, high (cells, asked attributes), half-open, that partition the asked attributes.

    randomizer: blurs the index of the box that holds a user's value.
    """

    attributes: tuple[int, ...]
    low: Integers
    high: Integers
    randomizer: Randomizer

    def about(self, attributes: tuple[int, ...]) -> Question:
        """The same question, put to other attributes of a larger domain."""
        return replace(self, attributes=tuple(attributes[a] for a in self.attributes))

    def locate(self, values: Integers) -> Integers:
        """(n,) index of the box that holds each row of values (n, all attributes)."""
        asked = values[:, list(self.attributes)]
        cuts = [np.unique(self.low[:, axis]) for axis in range(self.low.shape[1])]
        shape = tuple(len(cut) for cut in cuts)
        if np.prod(shape, dtype=np.float64) > _LARGEST_MAP:
            return self._compare(asked)
        coordinates = tuple(_positions(cut, asked[:, axis]) for axis, cut in enumerate(cuts))
        return self._map(cuts, shape)[coordinates]

    def histogram(self, values: Integers, people: Integers | None = None) -> Counts:
        """(cells,) how many people are in each box; people: (n,) at each row, one where None."""
        counts = np.bincount(self.locate(values), weights=people, minlength=len(self.low))
        return counts.astype(np.int64)  # sums of weights are floats, exact below 2^53

    def _map(self, cuts: list[Integers], shape: tuple[int, ...]) -> Integers:
        """The box of each cell of the grid that all the boxes' edges make together."""
        first = [np.searchsorted(cut, self.low[:, axis]) for axis, cut in enumerate(cuts)]
        last = [np.searchsorted(cut, self.high[:, axis]) for axis, cut in enumerate(cuts)]
        grid = np.empty(shape, dtype=np.int64)
        if len(self.low) == grid.size:
            grid[tuple(first)] = np.arange(grid.size)
            return grid
        for box in range(len(self.low)):
            grid[tuple(slice(a[box], b[box]) for a, b in zip(first, last, strict=True))] = box
        return grid

    def _compare(self, asked: Integers) -> Integers:
        """Box by box, where the grid of all edges would be too large."""
        located = np.empty(len(asked), dtype=np.int64)
        rows = max(1, _COMPARISONS_AT_ONCE // self.low.size)
        for start in range(0, len(asked), rows):
            part = asked[start : start + rows, None, :]
            inside = ((self.low <= part) & (part < self.high)).all(axis=2)
            located[start : start + rows] = inside.argmax(axis=1)
        return located


def _positions(cuts: Integers, values: Integers) -> Integers:
    """(n,) index of the last cut that is not above each value; cuts[0] is 0."""
    largest = int(values.max(initial=0))
    if largest >= len(values):
        return np.searchsorted(cuts, values, side="right") - 1
    table = np.searchsorted(cuts, np.arange(largest + 1), side="right") - 1
    return table[values]


def whole_domain_question(domain: Domain, randomizer: Randomizer) -> Question:
    """Every value (every combination of values) is a cell, in row-major order."""
    low = np.stack(np.unravel_index(np.arange(int(np.prod(domain))), domain), axis=1)
    return Question(tuple(range(len(domain))), low, low + 1, randomizer)
