"""Surveys whose rounds measure the levels of a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from equipoise.privacy.client.errors import PrivacyError
from equipoise.privacy.client.round import check_domain
from equipoise.privacy.estimates.tree import Measurements, Tree
from equipoise.privacy.estimates.tree_estimate import TreeEstimate, unprocessed
from equipoise.privacy.mechanisms.survey import Question, Survey, Tally, equal_shares
from equipoise.privacy.oracles import FrequencyOracle, OracleChoice, frequency_oracle

MOST_CHILDREN = 4096


class TreeSurvey(Survey):
    """Round l asks which box of the partition at depth l + 1 holds the value: ceil(log_B D) rounds.

    A leaf of a lesser depth is part of every later partition and measured again there.
    """

    def __init__(
        self,
        method: object,
        domain: int | Sequence[int],
        epsilon: float,
        users: int,
        tree: Tree,
        oracle: OracleChoice,
    ) -> None:
        super().__init__(method, domain, epsilon, users, equal_shares(tree.levels))
        self.tree = tree
        self.oracle = oracle

    def oracle_of(self, index: int) -> FrequencyOracle:
        """The frequency oracle of a round."""
        cells = len(self.tree.partition(index + 1))
        return frequency_oracle(self.oracle, cells, self.epsilon)

    def measurements(self, tallies: Mapping[int, Tally]) -> Measurements:
        """All rounds together, each weighted by the inverse of its noise variance."""
        measurements = Measurements.none(len(self.tree))
        for index, (counts, reports) in sorted(tallies.items()):
            oracle = self.oracle_of(index)
            estimate, weight = oracle.estimate(counts, reports), 1 / oracle.variance(reports)
            measurements.add(self.tree.partition(index + 1), estimate, weight, oracle, reports)
        return measurements

    def estimate_from(self, tallies: Mapping[int, Tally]) -> TreeEstimate:
        """The values as they were measured; a method that reconciles them does so here."""
        return unprocessed(self.tree, self.measurements(tallies))

    def _question(self, index: int) -> Question:
        nodes = self.tree.partition(index + 1)
        attributes = tuple(range(len(self.domain)))
        return Question(
            attributes, self.tree.low[nodes], self.tree.high[nodes], self.oracle_of(index)
        )


def new_tree(domain: int | Sequence[int], branching: int) -> Tree:
    """A tree of the checked domain that has only its root.

    Raises PrivacyError where a single split would make more than 4096 boxes.
    """
    sizes = check_domain(domain)
    if branching ** len(sizes) > MOST_CHILDREN:
        raise PrivacyError(
            f"{len(sizes)} attributes split a box into {branching}^{len(sizes)} parts, which is "
            "too many; take ahead_pairs or hdg."
        )
    return Tree(sizes, branching)
