"""DHT: the discrete Haar transform, each level's coefficients from its own group of users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.client.errors import PrivacyError
from equipoise.privacy.client.round import Domain, check_domain
from equipoise.privacy.estimates.range_estimate import RangeEstimate
from equipoise.privacy.estimates.tree import levels_of
from equipoise.privacy.mechanisms.survey import Question, Survey, Tally, equal_shares
from equipoise.privacy.oracles import HaarHadamard
from equipoise.privacy.oracles.randomizer import Floats, Integers


@dataclass(frozen=True)
class DiscreteHaarTransform:
    """Haar coefficients by Hadamard randomized response; consistent by construction; 1-D.

    Source: Cormode, Kulkarni and Srivastava 2019 (PVLDB 12), HaarHRR.
    """

    name: ClassVar[str] = "dht"

    def survey(self, domain: int | Sequence[int], epsilon: float, users: int) -> HaarSurvey:
        """One round for each level of the binary tree, in any order."""
        sizes = check_domain(domain)
        if len(sizes) != 1:
            raise PrivacyError("dht takes one attribute; for several, use ahead or hdg.")
        return HaarSurvey(self, sizes, epsilon, users, equal_shares(levels_of(sizes[0], 2)))


class HaarSurvey(Survey):
    """Round h asks for the sign of the half of the node at depth h."""

    def estimate_from(self, tallies: Mapping[int, Tally]) -> HaarEstimate:
        """Unbiased coefficients and the bound on their variance."""
        coefficients, variances = [], []
        for index in range(self.rounds):
            counts, reports = tallies[index]
            randomizer = self._randomizer(index)
            coefficients.append(randomizer.coefficients(counts, reports))
            variances.append(randomizer.variance(reports))
        return HaarEstimate(self.domain, coefficients, variances)

    def _question(self, index: int) -> Question:
        low = np.arange(0, self.domain[0], self._width(index))[:, None]
        high = np.minimum(low + self._width(index), self.domain[0])
        return Question((0,), low, high, self._randomizer(index))

    def _randomizer(self, index: int) -> HaarHadamard:
        return HaarHadamard(-(-self.domain[0] // self._width(index)), self.epsilon)

    def _width(self, index: int) -> int:
        """Of half a node."""
        return 1 << (self.rounds - index - 1)


@dataclass
class HaarEstimate(RangeEstimate):
    """f(left) = (f(node) + c) / 2 and f(right) = (f(node) - c) / 2 from the root's 1 down.

    coefficients: one array a level, padded to powers of 2; variances: one number a level.
    """

    domain: Domain
    coefficients: list[Floats]
    variances: list[float]

    def fractions(self, boxes: Integers) -> Floats:
        """Differences of the cumulative leaf frequencies."""
        cumulative = np.concatenate(([0.0], np.cumsum(self.leaves())))
        return cumulative[boxes[:, 0, 1]] - cumulative[boxes[:, 0, 0]]

    def leaves(self) -> Floats:
        """Frequencies of the domain's values."""
        values = np.ones(1)
        for level, coefficients in enumerate(self.coefficients):
            used = coefficients[: len(values)]
            used = np.where(self._right_is_empty(level), values, used)
            values = np.stack(((values + used) / 2, (values - used) / 2), axis=1).ravel()
        return values[: self.domain[0]]

    def deviations(self, boxes: Integers) -> Floats:
        """Root of the sum of the query's squared weights on the coefficients times variances."""
        points = np.arange(1 << len(self.coefficients))
        weights = ((boxes[:, :, 0] <= points) & (points < boxes[:, :, 1])).astype(np.float64)
        variance = np.zeros(len(boxes))
        for level in reversed(range(len(self.coefficients))):
            left, right, forced = weights[:, ::2], weights[:, 1::2], self._right_is_empty(level)
            used = np.where(forced, 0.0, (left - right) / 2)
            variance += self.variances[level] * (used**2).sum(axis=1)
            weights = np.where(forced, left, (left + right) / 2)
        return np.sqrt(variance)

    def _right_is_empty(self, level: int) -> NDArray[np.bool_]:
        """Nodes whose right half is padding: all of the node's mass is on the left."""
        width = 1 << (len(self.coefficients) - level)
        return np.arange(1 << level) * width + width // 2 >= self.domain[0]
