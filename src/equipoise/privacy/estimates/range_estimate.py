"""What every method ends in: something that answers range queries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.privacy.client.round import Domain
from equipoise.privacy.estimates.values import check_ranges

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Answer(NamedTuple):
    """The estimated fraction of people in a range, and its standard error, None where unknown."""

    value: float
    standard_error: float | None


class RangeEstimate(ABC):
    """Answers "which fraction of the people lies in this box?" for any box of the domain.

    The standard error is one: the truth lies within two of them in at least nine of ten answers. It
    covers the randomizers' noise, the chance of who was in which round, and where people are inside
    a leaf that the range cuts. A method whose own assumptions (smoothness, maximum entropy) move
    its answers further than that has none.
    """

    domain: Domain

    def answer(self, ranges: ArrayLike) -> Floats:
        """(n,) fractions for half-open ranges (n, attributes, 2), or (n, 2) for one attribute."""
        return self.fractions(check_ranges(ranges, self.domain))

    def standard_error(self, ranges: ArrayLike) -> Floats | None:
        """(n,) standard errors of `answer`, None where the method cannot tell them."""
        return self.deviations(check_ranges(ranges, self.domain))

    def query(self, *ranges: tuple[int, int]) -> Answer:
        """One box: a half-open range for each attribute."""
        box = [list(ranges)]
        errors = self.standard_error(box)
        return Answer(float(self.answer(box)[0]), None if errors is None else float(errors[0]))

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
    def deviations(self, boxes: Integers) -> Floats | None:
        """`standard_error` for checked boxes."""
