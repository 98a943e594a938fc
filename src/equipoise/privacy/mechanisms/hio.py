"""HIO: a static tree, each level measured by its own group of users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from equipoise.privacy.client.round import check_domain
from equipoise.privacy.estimates.tree import Tree
from equipoise.privacy.mechanisms.tree_survey import TreeSurvey
from equipoise.privacy.oracles import OracleChoice


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
        return TreeSurvey(self, domain, epsilon, users, tree, self.oracle)
