"""Uniform: a guess that needs no reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.client.errors import RoundError
from equipoise.privacy.client.round import Domain
from equipoise.privacy.estimates.range_estimate import RangeEstimate
from equipoise.privacy.mechanisms.survey import Question, Survey, Tally


@dataclass(frozen=True)
class Uniform:
    """Every value is equally frequent; no round, no noise, and an unknown error."""

    name: ClassVar[str] = "uniform"

    def survey(self, domain: int | Sequence[int], epsilon: float, users: int) -> Survey:
        """A survey without rounds."""
        return UniformSurvey(self, domain, epsilon, users, ())


class UniformSurvey(Survey):
    """Nobody is asked."""

    def estimate_from(self, tallies: Mapping[int, Tally]) -> RangeEstimate:
        """Volumes of the boxes."""
        return UniformEstimate(self.domain)

    def _question(self, index: int) -> Question:
        raise RoundError("The uniform guess collects no reports.")


@dataclass
class UniformEstimate(RangeEstimate):
    """Answers by volume alone."""

    domain: Domain

    def fractions(self, boxes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Volume of the box over the volume of the domain."""
        return ((boxes[..., 1] - boxes[..., 0]) / np.array(self.domain)).prod(axis=1)

    def deviations(self, boxes: NDArray[np.int64]) -> None:
        """None: without reports the error of the guess is unknown."""
