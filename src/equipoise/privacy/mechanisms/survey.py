"""The parts of every method: its survey of a population, and the question of each round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import NamedTuple, Protocol

import numpy as np

from equipoise.privacy.client.errors import PrivacyError, RoundError
from equipoise.privacy.client.round import Domain, check_domain, check_epsilon
from equipoise.privacy.estimates.range_estimate import RangeEstimate
from equipoise.privacy.estimates.tree import Measurements, Tree
from equipoise.privacy.estimates.tree_estimate import TreeEstimate, unprocessed
from equipoise.privacy.oracles import FrequencyOracle, OracleChoice, Randomizer, frequency_oracle
from equipoise.privacy.oracles.randomizer import Counts, Integers

_LARGEST_MAP = 1 << 22
_COMPARISONS_AT_ONCE = 1 << 22


MOST_CHILDREN = 4096


@dataclass(frozen=True)
class Question:
    """Boxes low, high (cells, asked attributes), half-open, that partition the asked attributes.

    randomizer: blurs the index of the box that holds a user's value.
    """

    attributes: tuple[int, ...]
    low: Integers
    high: Integers
    randomizer: Randomizer

    def about(self, attributes: tuple[int, ...]) -> Question:
        """The same question, put to other attributes of a larger domain."""
        return replace(self, attributes=tuple(attributes[a] for a in self.attributes))

    def locate(self, values: Integers) -> Integers:
        """(n,) index of the box that holds each row of values (n, all attributes)."""
        columns = values[:, list(self.attributes)]
        cuts = [np.unique(self.low[:, axis]) for axis in range(self.low.shape[1])]
        shape = tuple(len(cut) for cut in cuts)
        if np.prod(shape, dtype=np.float64) > _LARGEST_MAP:
            return self._compare(columns)
        coordinates = tuple(_positions(cut, columns[:, axis]) for axis, cut in enumerate(cuts))
        return self._map(cuts, shape)[coordinates]

    def histogram(self, values: Integers, people: Integers | None = None) -> Counts:
        """(cells,) how many people are in each box; people: (n,) at each row, one where None."""
        counts = np.bincount(self.locate(values), weights=people, minlength=len(self.low))
        return counts.astype(np.int64)  # sums of weights are floats, exact below 2^53

    def _map(self, cuts: list[Integers], shape: tuple[int, ...]) -> Integers:
        """The box that holds each cell of the grid formed by all the boxes' edges."""
        first = [np.searchsorted(cut, self.low[:, axis]) for axis, cut in enumerate(cuts)]
        last = [np.searchsorted(cut, self.high[:, axis]) for axis, cut in enumerate(cuts)]
        grid = np.empty(shape, dtype=np.int64)
        if len(self.low) == grid.size:
            grid[tuple(first)] = np.arange(grid.size)
            return grid
        for box in range(len(self.low)):
            grid[tuple(slice(a[box], b[box]) for a, b in zip(first, last, strict=True))] = box
        return grid

    def _compare(self, columns: Integers) -> Integers:
        """Box by box, where the grid of all edges would be too large."""
        located = np.empty(len(columns), dtype=np.int64)
        rows = max(1, _COMPARISONS_AT_ONCE // self.low.size)
        for start in range(0, len(columns), rows):
            part = columns[start : start + rows, None, :]
            inside = ((self.low <= part) & (part < self.high)).all(axis=2)
            located[start : start + rows] = inside.argmax(axis=1)
        return located


def _positions(cuts: Integers, values: Integers) -> Integers:
    """(n,) index of the last cut that is not above each value; cuts[0] is 0."""
    largest = int(values.max(initial=0))
    if largest >= len(values):
        return np.searchsorted(cuts, values, side="right") - 1
    table = np.searchsorted(cuts, np.arange(largest + 1), side="right") - 1
    return table[values]


def whole_domain_question(domain: Domain, randomizer: Randomizer) -> Question:
    """Every value (every combination of values) is a cell, in row-major order."""
    low = np.stack(np.unravel_index(np.arange(int(np.prod(domain))), domain), axis=1)
    return Question(tuple(range(len(domain))), low, low + 1, randomizer)


class Tally(NamedTuple):
    """The sums of a round's reports: int64 counts of set bits, and the number of reports."""

    counts: Counts
    reports: int


class Survey(ABC):
    """Rounds, each for its own group of users, and the estimate that they lead to.

    Each user is in one round only and spends the whole epsilon there. method: the settings that
    made the survey; their text is part of a saved state. shares: the probability with
    which a user falls into each round, whatever the value. users: the expected number; thresholds
    and grid sizes follow from it. The survey's state is the tallies of its closed rounds: closing
    the same rounds with the same tallies gives the same survey again.
    Raises PrivacyError for a wrong epsilon or domain, and for fewer users than rounds.
    """

    def __init__(
        self,
        method: object,
        domain: int | Sequence[int],
        epsilon: float,
        users: int,
        shares: Sequence[float],
    ) -> None:
        self.method = method
        self.domain = check_domain(domain)
        self.epsilon = check_epsilon(epsilon)
        self.users = users
        self.shares = tuple(shares)
        self.tallies: dict[int, Tally] = {}
        if not isinstance(users, Integral) or isinstance(users, bool):
            raise PrivacyError(f"The number of users must be an integer, got {users!r}.")
        if users < max(1, self.rounds):
            raise PrivacyError(
                f"{users} users cannot fill {self.rounds} rounds; ask more people or use a method "
                "with fewer rounds."
            )

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(self.shares)

    @property
    def finished(self) -> bool:
        """Whether every round is closed."""
        return len(self.tallies) == self.rounds

    def signature(self) -> dict[str, object]:
        """What must match for a saved state to fit: settings, domain, epsilon, users."""
        return {
            "method": repr(self.method),
            "domain": list(self.domain),
            "epsilon": self.epsilon,
            "users": self.users,
        }

    def ready(self, index: int) -> bool:
        """Whether the round's question is known; adaptive methods wait for earlier rounds."""
        return 0 <= index < self.rounds

    def question(self, index: int) -> Question:
        """The question of round `index`; raises RoundError where it is not known yet."""
        if not 0 <= index < self.rounds:
            raise RoundError(f"There is no round {index}; the survey has {self.rounds}.")
        if not self.ready(index):
            raise RoundError(f"Round {index} depends on an earlier round that is still open.")
        return self._question(index)

    def close(self, index: int, tally: Tally) -> None:
        """Close a round with the tally of its reports.

        Raises RoundError for an empty round, one closed before, and for counts that no reports of
        this round can have.
        """
        if index in self.tallies:
            raise RoundError(f"Round {index} is already closed.")
        checked = check_tally(index, tally, self.question(index).randomizer)
        if checked.reports < 1:
            raise RoundError(f"Round {index} has no report; wait for some, or ask more users.")
        self.tallies[index] = checked
        self._closed(index)

    def estimate(self) -> RangeEstimate:
        """Answers to range queries; raises RoundError while a round is open."""
        if not self.finished:
            missing = sorted(set(range(self.rounds)) - set(self.tallies))
            raise RoundError(f"Rounds {missing} are not closed yet.")
        return self.estimate_from(self.tallies)

    @abstractmethod
    def estimate_from(self, tallies: Mapping[int, Tally]) -> RangeEstimate:
        """The estimate that these tallies of all the rounds lead to."""

    @abstractmethod
    def _question(self, index: int) -> Question:
        """`question` for an index that is known to be ready."""

    def _closed(self, index: int) -> None:  # noqa: B027  only adaptive methods have anything to do
        """Prepare what follows from a closed round."""


def check_tally(index: int, tally: Tally, randomizer: Randomizer) -> Tally:
    """The tally as int64 and int; raises RoundError where no reports can sum to it."""
    counts, reports = np.asarray(tally.counts), tally.reports
    whole = isinstance(reports, Integral) and not isinstance(reports, bool)
    if not whole or counts.dtype.kind not in "iu":
        raise RoundError(f"The counts and the number of reports of round {index} must be integers.")
    if counts.shape != (randomizer.outputs,):
        raise RoundError(f"The counts of round {index} do not have the width of its reports.")
    if reports < 0 or counts.min() < 0 or counts.max() > reports:
        raise RoundError(
            f"The counts of round {index} must lie between 0 and its {reports} reports."
        )
    if randomizer.one_hot and counts.sum() != reports:
        raise RoundError(
            f"Each report of round {index} sets one bit, but its counts add up to {counts.sum()} "
            f"for {reports} reports."
        )
    return Tally(counts.astype(np.int64), int(reports))


class Mechanism(Protocol):
    """A method with its settings; a dataclass whose fields are those settings."""

    @property
    def name(self) -> str:
        """What the method is called on the command line."""
        ...

    def survey(self, domain: int | Sequence[int], epsilon: float, users: int) -> Survey:
        """A fresh survey of `users` people over this domain."""
        ...


def equal_shares(rounds: int) -> tuple[float, ...]:
    """Every round gets the same share of the users."""
    return (1.0 / rounds,) * rounds


class TreeSurvey(Survey):
    """Round l asks which box of the partition at depth l + 1 holds the value: ceil(log_B D) rounds.

    A shallower leaf is part of every later partition and is measured again in each.
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
        """The values as measured; a method that reconciles them overrides this."""
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
            "too many; use ahead_pairs or hdg."
        )
    return Tree(sizes, branching)
