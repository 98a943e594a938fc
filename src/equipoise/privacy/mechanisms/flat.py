"""Flat: one frequency oracle over the whole domain."""

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
class Flat:
    """A range is the sum of its values' raw estimates, so that its error grows with its length.

    In one attribute this is CALM. Norm-Sub would make long ranges worse, not better.
    """

    name: ClassVar[str] = "flat"

    oracle: OracleChoice = "oue"

    def survey(self, domain: int | Sequence[int], epsilon: float, users: int) -> TreeSurvey:
        """A single round."""
        sizes = check_domain(domain)
        return FlatSurvey(self, sizes, epsilon, users, Tree.full(sizes, max(sizes)), self.oracle)


class FlatSurvey(TreeSurvey):
    """The tree is the domain and, one level below, its values."""

    def estimate_from(self, tallies: Mapping[int, Tally]) -> TreeEstimate:
        """No post-processing."""
        return unprocessed(self.tree, self.measurements(tallies))
