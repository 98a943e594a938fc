"""HIO: a static tree, each level measured by its own group of users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from equipoise.privacy.domain import check_domain
from equipoise.privacy.oracles import OracleChoice
from equipoise.privacy.postprocessing import unprocessed
from equipoise.privacy.survey import Tally
from equipoise.privacy.tree import Tree
from equipoise.privacy.tree_estimate import TreeEstimate
from equipoise.privacy.tree_survey import TreeSurvey


@dataclass(frozen=True, kw_only=True)
class HierarchicalIntervals:
    """HIO: unbiased and unprocessed; a range is the sum of the highest nodes inside it.

    Source: Wang et al. 2019 (SIGMOD), with OUE in place of OLH, which has the same variance.
    """

    name: ClassVar[str] = "hio"

    branching: int = 4
    oracle: OracleChoice = "oue"

    def survey(self, domain: int | Sequence[int], epsilon: float, users: int) -> TreeSurvey:
        """One round a level, in any order."""
        tree = Tree.full(check_domain(domain), self.branching)
        return HierarchicalIntervalsSurvey(self, domain, epsilon, users, tree, self.oracle)


class HierarchicalIntervalsSurvey(TreeSurvey):
    """Levels as they were measured."""

    def estimate_from(self, tallies: Mapping[int, Tally]) -> TreeEstimate:
        """No post-processing."""
        return unprocessed(self.tree, self.measurements(tallies))
