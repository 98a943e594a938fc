"""The result of every method: answers to range queries, on one attribute or on pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from equipoise.privacy.client.errors import PrivacyError
from equipoise.privacy.client.round import Domain
from equipoise.privacy.estimates.distributions import joint_probability
from equipoise.privacy.estimates.values import check_ranges
from equipoise.privacy.oracles.randomizer import Floats, Integers

MOST_ATTRIBUTES = 12


class Answer(NamedTuple):
    """The estimated fraction of people in a range, and its standard error (None if unknown)."""

    value: float
    standard_error: float | None


class RangeEstimate(ABC):
    """Answers "which fraction of the people lies in this box?" for any box of the domain.

    The truth lies within two standard errors of at least nine answers in ten. A standard error
    covers the randomizers' noise, the random split of people into rounds, and where people are
    inside a leaf that the range cuts. A method whose own assumptions (smoothness, maximum entropy)
    move its answers further than that reports none.
    """

    domain: Domain

    def answer(self, ranges: ArrayLike) -> Floats:
        """(n,) fractions for half-open ranges (n, attributes, 2), or (n, 2) for one attribute."""
        return self.fractions(check_ranges(ranges, self.domain))

    def standard_error(self, ranges: ArrayLike) -> Floats | None:
        """(n,) standard errors of `answer`, None where the method cannot compute them."""
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


Pair = tuple[int, int]


@dataclass
class PairEstimate(RangeEstimate):
    """Answers from estimates over pairs of attributes, joined by maximum entropy.

    pairs: one estimate over two attributes for each pair, in the order of `pairs_of`. The range of
    a single attribute is the mean over the pairs that contain it, which makes the pairs
    consistent with one another for every query.
    """

    domain: Domain
    pairs: list[RangeEstimate]

    def fractions(self, boxes: Integers) -> Floats:
        """For one pair its own answer, for more P(inside in all attributes) at maximum entropy."""
        if len(self.pairs) == 1:
            return self.pairs[0].fractions(boxes)
        members = pairs_of(self.domain)
        both = [
            pair.fractions(boxes[:, list(p)]) for p, pair in zip(members, self.pairs, strict=True)
        ]
        return joint_probability(self._single(boxes, members), np.stack(both, axis=1))

    def deviations(self, boxes: Integers) -> Floats | None:
        """For one pair its own; for more None, as maximum entropy's error cannot be measured."""
        return self.pairs[0].deviations(boxes) if len(self.pairs) == 1 else None

    def _single(self, boxes: Integers, members: list[Pair]) -> Floats:
        """(n, attributes) fractions inside each attribute's range alone."""
        sums = np.zeros((len(boxes), len(self.domain)))
        for pair, estimate in zip(members, self.pairs, strict=True):
            for position, attribute in enumerate(pair):
                alone = boxes[:, list(pair)]
                alone[:, 1 - position] = (0, self.domain[pair[1 - position]])
                sums[:, attribute] += estimate.fractions(alone)
        return sums / (len(self.domain) - 1)


def pairs_of(domain: Domain) -> list[Pair]:
    """All pairs of attributes, in lexicographic order."""
    return list(combinations(range(len(domain)), 2))


def check_has_pairs(domain: Domain, method: str) -> None:
    """Raise PrivacyError for a single attribute, and for more than 12."""
    if len(domain) > MOST_ATTRIBUTES:
        raise PrivacyError(
            f"{method} takes at most {MOST_ATTRIBUTES} attributes: maximum entropy weighs "
            f"2^{len(domain)} outcomes for each query."
        )
    if len(domain) < 2:
        raise PrivacyError(f"{method} takes at least two attributes; for one, use ahead.")
