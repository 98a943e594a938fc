"""What every method ends in: something that answers range queries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.privacy.domain import Domain
from equipoise.privacy.values import check_ranges

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Answer(NamedTuple):
    """The estimated fraction of people in a range, and its standard error."""

    value: float
    standard_error: float


class RangeEstimate(ABC):
    """Answers "which fraction of the people lies in this box?" for any box of the domain.

    The standard error covers the randomizers' noise and the chance of who was in which round. It
    does not cover what a model assumes (uniform inside a leaf, smoothness, maximum entropy), nor
    the bias that the removal of negative frequencies brings.
    """

    domain: Domain

    def answer(self, ranges: ArrayLike) -> Floats:
        """(n,) fractions for half-open ranges (n, attributes, 2), or (n, 2) for one attribute."""
        return self.fractions(check_ranges(ranges, self.domain))

    def standard_error(self, ranges: ArrayLike) -> Floats:
        """(n,) standard errors of `answer`."""
        return self.deviations(check_ranges(ranges, self.domain))

    def query(self, *ranges: tuple[int, int]) -> Answer:
        """One box: a half-open range for each attribute."""
        box = [list(ranges)]
        return Answer(float(self.answer(box)[0]), float(self.standard_error(box)[0]))

    def marginal(self, attribute: int = 0) -> Floats:
        """(domain[attribute],) the estimated fraction at each value of one attribute."""
        size = self.domain[attribute]
        boxes = np.stack((np.zeros_like(self.domain), np.array(self.domain)), axis=1)
        boxes = np.repeat(boxes[None], size, axis=0)
        boxes[:, attribute, 0] = np.arange(size)
        boxes[:, attribute, 1] = np.arange(size) + 1
        return self.fractions(boxes)

    @abstractmethod
    def fractions(self, boxes: Integers) -> Floats:
        """`answer` for checked boxes (n, attributes, 2)."""

    @abstractmethod
    def deviations(self, boxes: Integers) -> Floats:
        """`standard_error` for checked boxes."""
