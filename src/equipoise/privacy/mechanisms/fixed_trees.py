"""The methods on a tree fixed in advance: Flat (one level), HIO and HH4+."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from equipoise.privacy.client.round import check_domain
from equipoise.privacy.estimates.tree import Tree
from equipoise.privacy.estimates.tree_estimate import TreeEstimate, consistent_non_negative
from equipoise.privacy.mechanisms.survey import Tally, TreeSurvey
from equipoise.privacy.oracles import OracleChoice


@dataclass(frozen=True, kw_only=True)
class Flat:
    """A range is the sum of its values' raw estimates, so its error grows with its length.

    In one attribute this is CALM. Norm-Sub would make long ranges worse, not better.
    """

    name: ClassVar[str] = "flat"

    oracle: OracleChoice = "oue"

    def survey(self, domain: int | Sequence[int], epsilon: float, users: int) -> TreeSurvey:
        """A single round: the tree is the domain and, one level below, its values."""
        sizes = check_domain(domain)
        return TreeSurvey(self, sizes, epsilon, users, Tree.full(sizes, max(sizes)), self.oracle)


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


@dataclass(frozen=True, kw_only=True)
class HierarchicalHistogram:
    """A hierarchical histogram with constrained inference, then Norm-Sub from the root down.

    A baseline not in AHEAD's paper, and about as accurate as AHEAD as published.
    Source: Cormode, Kulkarni and Srivastava 2019 (PVLDB 12), HH with consistency.
    """

    name: ClassVar[str] = "hh4"

    branching: int = 4
    oracle: OracleChoice = "oue"

    def survey(self, domain: int | Sequence[int], epsilon: float, users: int) -> TreeSurvey:
        """One round a level, in any order."""
        tree = Tree.full(check_domain(domain), self.branching)
        return HierarchicalHistogramSurvey(self, domain, epsilon, users, tree, self.oracle)


class HierarchicalHistogramSurvey(TreeSurvey):
    """Levels reconciled with one another."""

    def estimate_from(self, tallies: Mapping[int, Tally]) -> TreeEstimate:
        """Weighted least squares, negative values removed last."""
        return consistent_non_negative(self.tree, self.measurements(tallies))
