"""AHEAD: a hierarchical tree that grows only where there are enough people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from equipoise.privacy.client.errors import PrivacyError
from equipoise.privacy.estimates.distributions import norm_sub, norm_sub_once
from equipoise.privacy.estimates.tree import Measurements
from equipoise.privacy.estimates.tree_estimate import (
    TreeEstimate,
    consistent_non_negative,
    published_bottom_up,
    released_bottom_up,
)
from equipoise.privacy.mechanisms.survey import Tally, TreeSurvey, new_tree
from equipoise.privacy.oracles import OracleChoice

AheadMode = Literal["gls", "paper", "released"]


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """AHEAD in any number of attributes; in more than two, `AheadPairs` is the better choice.

    branching: B, parts into which each attribute of a box is split. mode: `gls` averages the raw
    estimates of the rounds, solves weighted least squares on the tree and removes negative values
    last; `paper` is the published post-processing; `released` that of the authors' one-dimensional
    program, whose weights differ from the paper's. oracle: null means `auto` (GRR in rounds with
    few leaves) for `gls` and `oue` for the other two. theta_scale: factor on published theta.
    Source: Du et al. 2021 (CCS), arXiv 2110.07505.
    """

    name: ClassVar[str] = "ahead"

    branching: int = 2
    mode: AheadMode = "gls"
    oracle: OracleChoice | None = None
    theta_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in get_args(AheadMode):
            raise PrivacyError(f"mode must be one of {get_args(AheadMode)}, got {self.mode!r}.")
        if not self.theta_scale >= 0:
            raise PrivacyError(f"theta_scale must not be negative, got {self.theta_scale}.")

    def survey(self, domain: int | Sequence[int], epsilon: float, users: int) -> AheadSurvey:
        """Rounds in sequence: the tree of each round depends on the round before."""
        return AheadSurvey(domain, epsilon, users, self)

    @property
    def oracle_choice(self) -> OracleChoice:
        """The oracle in force."""
        return self.oracle or ("auto" if self.mode == "gls" else "oue")


class AheadSurvey(TreeSurvey):
    """Before each round, every leaf that was new in the last round and reached theta is split."""

    def __init__(
        self, domain: int | Sequence[int], epsilon: float, users: int, settings: Ahead
    ) -> None:
        tree = new_tree(domain, settings.branching)
        super().__init__(settings, domain, epsilon, users, tree, settings.oracle_choice)
        self.settings = settings
        fanout = settings.branching ** len(self.domain)
        theta = split_threshold(users, self.rounds, self.epsilon, fanout)
        self.threshold = settings.theta_scale * theta
        tree.split(np.array([0]))

    def ready(self, index: int) -> bool:
        """Whether the round is the next one or already closed."""
        return super().ready(index) and index <= len(self.tallies)

    def estimate_from(self, tallies: Mapping[int, Tally]) -> TreeEstimate:
        """The tree as grown so far, with these tallies, post-processed according to the mode."""
        if self.settings.mode == "gls":
            return consistent_non_negative(self.tree, self.measurements(tallies))
        if self.settings.mode == "paper":
            return published_bottom_up(self.tree, self._normalised(tallies))
        return released_bottom_up(self.tree, self._normalised(tallies))

    def _closed(self, index: int) -> None:
        """New decomposition: split the new leaves whose frequency reaches theta."""
        if index + 1 == self.rounds:
            return
        tally, nodes = self.tallies[index], self.tree.partition(index + 1)
        frequency = self._norm_sub(self.oracle_of(index).estimate(tally.counts, tally.reports))
        new = self.tree.depth[nodes] == index + 1
        self.tree.split(nodes[new & (frequency >= self.threshold)])

    def _normalised(self, tallies: Mapping[int, Tally]) -> Measurements:
        """Norm-Sub in each round, then plain means over the rounds."""
        measurements = Measurements.none(len(self.tree))
        for index, (counts, reports) in sorted(tallies.items()):
            oracle = self.oracle_of(index)
            estimate = self._norm_sub(oracle.estimate(counts, reports))
            measurements.add(self.tree.partition(index + 1), estimate, 1.0, oracle, reports)
        return measurements

    def _norm_sub(self, frequencies: np.ndarray) -> np.ndarray:
        once = self.settings.mode == "released"
        return norm_sub_once(frequencies) if once else norm_sub(frequencies)


def split_threshold(users: int, rounds: int, epsilon: float, fanout: int) -> float:
    """theta = sqrt((fanout + 1) Var), Var = 4 e^eps / (users / rounds (e^eps - 1)^2).

    Below it a uniform guess for the children beats measuring them, in the worst case.
    fanout: B in one attribute, B^2 in two. Source: Du et al. 2021, section 4.3.
    """
    variance = 4 * rounds * math.exp(epsilon) / (users * math.expm1(epsilon) ** 2)
    return math.sqrt((fanout + 1) * variance)
