"""AHEAD by pairs of attributes, joined by maximum entropy (LLE in the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from equipoise.privacy.client.errors import PrivacyError
from equipoise.privacy.client.round import check_domain
from equipoise.privacy.estimates.range_estimate import PairEstimate, check_has_pairs, pairs_of
from equipoise.privacy.mechanisms.ahead import Ahead, AheadSurvey
from equipoise.privacy.mechanisms.survey import Question, Survey, Tally, equal_shares


@dataclass(frozen=True, kw_only=True)
class AheadPairs:
    """A tree for each pair of attributes; users are divided among all levels of all pairs.

    ahead: the settings of each tree. Consistency between pairs is enforced when a query is
    answered (see `PairEstimate`), not layer by layer as in the paper.
    Source: Du et al. 2021 (CCS), section 5.2, "leveraging low-dimensional estimation".
    """

    name: ClassVar[str] = "ahead_pairs"

    ahead: Ahead = field(default_factory=Ahead)

    def survey(self, domain: int | Sequence[int], epsilon: float, users: int) -> AheadPairsSurvey:
        """Rounds of the same level can run side by side; levels follow one another."""
        check_has_pairs(check_domain(domain), self.name)
        return AheadPairsSurvey(domain, epsilon, users, self)


class AheadPairsSurvey(Survey):
    """Round `level * pairs + pair`: all pairs of a level, then the next level."""

    def __init__(
        self, domain: int | Sequence[int], epsilon: float, users: int, settings: AheadPairs
    ) -> None:
        sizes = check_domain(domain)
        self.pairs = pairs_of(sizes)
        if users < len(self.pairs):
            raise PrivacyError(f"{users} users cannot be divided among {len(self.pairs)} pairs.")
        self.surveys = [
            settings.ahead.survey((sizes[a], sizes[b]), epsilon, users // len(self.pairs))
            for a, b in self.pairs
        ]
        deepest = max(survey.rounds for survey in self.surveys)
        self.order = [
            (pair, level)
            for level in range(deepest)
            for pair, survey in enumerate(self.surveys)
            if level < survey.rounds
        ]
        super().__init__(settings, sizes, epsilon, users, equal_shares(len(self.order)))

    def ready(self, index: int) -> bool:
        """Whether the previous level of the same pair is closed."""
        if not super().ready(index):
            return False
        pair, level = self.order[index]
        return self.surveys[pair].ready(level)

    def estimate_from(self, tallies: Mapping[int, Tally]) -> PairEstimate:
        """Each pair's own estimate, and the rule that joins them."""
        estimates = [
            survey.estimate_from(
                {level: tallies[i] for i, (p, level) in enumerate(self.order) if p == pair}
            )
            for pair, survey in enumerate(self.surveys)
        ]
        return PairEstimate(self.domain, list(estimates))

    def _survey_of(self, index: int) -> tuple[AheadSurvey, int]:
        pair, level = self.order[index]
        return self.surveys[pair], level

    def _question(self, index: int) -> Question:
        survey, level = self._survey_of(index)
        return survey.question(level).about(self.pairs[self.order[index][0]])

    def _closed(self, index: int) -> None:
        survey, level = self._survey_of(index)
        survey.close(level, self.tallies[index])
