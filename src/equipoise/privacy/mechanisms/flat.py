"""Flat: one frequency oracle over the whole domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from equipoise.privacy.client.round import check_domain
from equipoise.privacy.estimates.tree import Tree
from equipoise.privacy.mechanisms.tree_survey import TreeSurvey
from equipoise.privacy.oracles import OracleChoice


@dataclass(frozen=True, kw_only=True)
class Flat:
    """A range is the sum of its values' raw estimates, so that its error grows with its length.

    In one attribute this is CALM. Norm-Sub would make long ranges worse, not better.
    """

    name: ClassVar[str] = "flat"

    oracle: OracleChoice = "oue"

    def survey(self, domain: int | Sequence[int], epsilon: float, users: int) -> TreeSurvey:
        """A single round: the tree is the domain and, one level below, its values."""
        sizes = check_domain(domain)
        return TreeSurvey(self, sizes, epsilon, users, Tree.full(sizes, max(sizes)), self.oracle)
