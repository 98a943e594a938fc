"""SW-EMS: square wave reports, and expectation maximisation with smoothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.client.errors import PrivacyError
from equipoise.privacy.client.round import Domain, check_domain
from equipoise.privacy.estimates.distributions import expectation_maximization
from equipoise.privacy.estimates.range_estimate import RangeEstimate
from equipoise.privacy.mechanisms.survey import (
    Question,
    Survey,
    Tally,
    equal_shares,
    whole_domain_question,
)
from equipoise.privacy.oracles import SquareWave
from equipoise.privacy.oracles.randomizer import Floats


@dataclass(frozen=True, kw_only=True)
class SmoothedSquareWave:
    """One round over the whole domain of one attribute.

    The best of the methods on smooth data, among the worst on spiky data. smooth: False is plain
    EM; tolerance: least gain in log-likelihood. Source: Li et al. 2020 (SIGMOD).
    """

    name: ClassVar[str] = "sw"

    smooth: bool = True
    tolerance: float = 1e-3
    max_iterations: int = 10_000

    def survey(self, domain: int | Sequence[int], epsilon: float, users: int) -> Survey:
        """A single round."""
        sizes = check_domain(domain)
        if len(sizes) != 1:
            raise PrivacyError("sw takes one attribute; for several, use ahead or hdg.")
        return SquareWaveSurvey(sizes, epsilon, users, self)


class SquareWaveSurvey(Survey):
    """Every user reports near their value."""

    def __init__(
        self, domain: Domain, epsilon: float, users: int, settings: SmoothedSquareWave
    ) -> None:
        super().__init__(settings, domain, epsilon, users, equal_shares(1))
        self.randomizer = SquareWave(self.domain[0], self.epsilon)
        self.settings = settings

    def estimate_from(self, tallies: Mapping[int, Tally]) -> RangeEstimate:
        """The smoothed maximum-likelihood histogram."""
        solve = partial(
            expectation_maximization,
            self.randomizer,
            smooth=self.settings.smooth,
            tolerance=self.settings.tolerance,
            max_iterations=self.settings.max_iterations,
        )
        return HistogramEstimate(self.domain, solve(tallies[0].counts))

    def _question(self, index: int) -> Question:
        return whole_domain_question(self.domain, self.randomizer)


@dataclass
class HistogramEstimate(RangeEstimate):
    """Sums of the frequencies (values,) of one attribute."""

    domain: Domain
    frequencies: Floats

    def fractions(self, boxes: NDArray[np.int64]) -> Floats:
        """Differences of the cumulative frequencies."""
        cumulative = np.concatenate(([0.0], np.cumsum(self.frequencies)))
        return cumulative[boxes[:, 0, 1]] - cumulative[boxes[:, 0, 0]]

    def deviations(self, boxes: NDArray[np.int64]) -> None:
        """None: the bias of smoothing and of stopping early exceeds the noise of the reports."""
