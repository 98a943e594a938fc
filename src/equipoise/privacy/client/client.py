"""The client of a survey: it checks the question, spends once, and sends blurred bits."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence

from equipoise.privacy.client.errors import AlreadySpent, PrivacyError, RoundError
from equipoise.privacy.client.ledger import Ledger, Spent
from equipoise.privacy.client.randomizers import RandomBytes, randomize
from equipoise.privacy.client.round import MOST_CELLS, RoundDescription, check_limit, is_index
from equipoise.privacy.client.wire import IDENTIFIER_BYTES, encode_report


class Client:
    """One person's device.

    epsilon_limit: the largest epsilon that a single report may have; lifetime_epsilon: bound on the
    sum over all tasks, since reports about the same person add up, None for no bound; most_cells:
    the longest report. random_bytes and clock default to the operating system's; tests may replace
    them. Raises PrivacyError for a limit that is not a finite number above 0.
    """

    def __init__(
        self,
        ledger: Ledger,
        epsilon_limit: float,
        lifetime_epsilon: float | None = None,
        most_cells: int = 4096,
        random_bytes: RandomBytes = os.urandom,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ledger = ledger
        self.epsilon_limit = check_limit("epsilon_limit", epsilon_limit)
        if lifetime_epsilon is not None:
            check_limit("lifetime_epsilon", lifetime_epsilon)
        if not is_index(most_cells, MOST_CELLS + 1):
            raise PrivacyError(
                f"most_cells must be an integer up to {MOST_CELLS}, got {most_cells!r}."
            )
        self.lifetime_epsilon = lifetime_epsilon
        self.most_cells = most_cells
        self.random_bytes = random_bytes
        self.clock = clock

    def join(self, task: str, shares: Sequence[float]) -> int:
        """Draw this person's round of the task, once and whatever the value is; shares sum to 1.

        Joining again gives the same round.
        """
        recorded = self.ledger.group(task)
        if recorded is not None:
            return recorded
        return self.ledger.record_group(task, self._draw_group(shares))

    def report(self, description: RoundDescription, value: int | Sequence[int]) -> bytes:
        """The report to send, in the wire format; the same bytes again for a retry.

        Takes the same steps whatever the value, so that the time it takes says nothing about it.
        Raises RoundError for a round that must not be answered, PrivacyError for a value outside
        the domain, AlreadySpent where this person has already reported for the task.
        """
        self._check_round(description)
        spent = self.ledger.spent(description.task)
        if spent is None:
            entry = self._perturbed(description, value)
            spent = self.ledger.record(entry, self.lifetime_epsilon)
        if spent.partition != description.partition_hash().hex():
            raise AlreadySpent(
                f"This person has answered round {spent.round} of {description.task!r} already."
            )
        return bytes.fromhex(spent.report)

    def _check_round(self, description: RoundDescription) -> None:
        if not self._is_short(description):
            raise RoundError(f"The round asks for more than {self.most_cells} bits.")
        description.check()
        if not description.epsilon <= self.epsilon_limit:
            raise RoundError(
                f"The round asks for epsilon {description.epsilon:g}, above this device's limit "
                f"of {self.epsilon_limit:g}."
            )
        if description.expires and self.clock() > description.expires:
            raise RoundError(f"Round {description.round} of {description.task!r} has expired.")
        group = self.ledger.group(description.task)
        if group != description.round:
            joined = "no round yet; call join first" if group is None else f"round {group} only"
            raise RoundError(f"This person answers {joined}, not round {description.round}.")

    def _is_short(self, description: RoundDescription) -> bool:
        """Checked before any work that grows with the round; other outputs are refused later."""
        outputs = description.outputs
        wide = isinstance(outputs, int) and outputs > self.most_cells
        return not wide and len(description.cells) <= self.most_cells

    def _perturbed(self, description: RoundDescription, value: int | Sequence[int]) -> Spent:
        cell = description.locate(checked_value(value, description.domain))
        payload = randomize(description, cell, self.random_bytes)
        report = encode_report(description, self.random_bytes(IDENTIFIER_BYTES), payload)
        partition = description.partition_hash().hex()
        return Spent(
            description.task, description.round, partition, description.epsilon, report.hex()
        )

    def _draw_group(self, shares: Sequence[float]) -> int:
        """Index i with probability shares[i]."""
        proper = all(_is_share(share) for share in shares)
        if not proper or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
            raise RoundError(f"The shares of the rounds must sum to 1, got {shares!r}.")
        point = int.from_bytes(self.random_bytes(8), "little") / 2**64 * sum(shares)
        for index, share in enumerate(shares):
            point -= share
            if point < 0:
                return index
        return len(shares) - 1


def _is_share(share: object) -> bool:
    return isinstance(share, (int, float)) and 0 <= share <= 1


def checked_value(value: int | Sequence[int], domain: tuple[int, ...]) -> tuple[int, ...]:
    """One integer for each attribute, inside the domain; raises PrivacyError otherwise."""
    numbers = tuple(value) if isinstance(value, Sequence) else (value,)
    fits = len(numbers) == len(domain)
    if not fits or not all(is_index(x, size) for x, size in zip(numbers, domain, strict=True)):
        raise PrivacyError(
            f"The value must be integers from 0 to below {list(domain)}, got {value!r}."
        )
    return numbers
