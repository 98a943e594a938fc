"""Ranges over many attributes from estimates of every pair of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.client.errors import PrivacyError
from equipoise.privacy.client.round import Domain
from equipoise.privacy.estimates.distributions import joint_probability
from equipoise.privacy.estimates.range_estimate import RangeEstimate
from equipoise.privacy.oracles.randomizer import Floats

Integers = NDArray[np.int64]
Pair = tuple[int, int]
MOST_ATTRIBUTES = 12


@dataclass
class PairEstimate(RangeEstimate):
    """The answers for pairs and single attributes, joined by maximum entropy.

    pairs: one estimate over two attributes for each pair, in the order of `pairs_of`. The range of
    a single attribute is the mean over the pairs that contain it, which makes the pairs
    consistent with one another for every query.
    """

    domain: Domain
    pairs: list[RangeEstimate]

    def fractions(self, boxes: Integers) -> Floats:
        """One pair: its own answer. More: P(inside in all attributes) at maximum entropy."""
        if len(self.pairs) == 1:
            return self.pairs[0].fractions(boxes)
        members = pairs_of(self.domain)
        both = [
            pair.fractions(boxes[:, list(p)]) for p, pair in zip(members, self.pairs, strict=True)
        ]
        return joint_probability(self._single(boxes, members), np.stack(both, axis=1))

    def deviations(self, boxes: Integers) -> Floats | None:
        """One pair: its own. More: None, since what maximum entropy assumes cannot be measured."""
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
