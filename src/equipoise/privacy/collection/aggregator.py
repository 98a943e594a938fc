"""The aggregator: it opens rounds, counts reports, closes rounds, and returns the estimate."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.client.errors import MergeError, PrivacyError, RoundError
from equipoise.privacy.client.round import RoundDescription, check_task, is_index
from equipoise.privacy.client.wire import (
    HEADER,
    IDENTIFIER_BYTES,
    PREFIX,
    VERSION,
    payload_bytes,
    task_key,
)
from equipoise.privacy.collection.open_round import OpenRound, Receipt, Refusal, identifiers_of
from equipoise.privacy.collection.saved_state import STATE_VERSION, SavedState, read_state
from equipoise.privacy.estimates.range_estimate import RangeEstimate
from equipoise.privacy.mechanisms.survey import Survey, Tally, check_tally
from equipoise.privacy.oracles.randomizer import Bytes, Counts


def describe(survey: Survey, index: int, task: str, expires: int = 0) -> RoundDescription:
    """A round as published to clients; raises RoundError if its reports would be too wide."""
    question = survey.question(index)
    boxes = np.stack((question.low, question.high), axis=2).tolist()
    description = RoundDescription(
        task=task,
        round=index,
        rounds=survey.rounds,
        epsilon=survey.epsilon,
        randomizer=question.randomizer.name,
        outputs=question.randomizer.outputs,
        domain=survey.domain,
        attributes=question.attributes,
        cells=tuple(tuple((low, high) for low, high in box) for box in boxes),
        expires=expires,
    )
    description.check()
    return description


class Aggregator:
    """Reports of one survey.

    task: a name that no other survey ever uses; minimum_reports: a round with
    fewer is not closed, since its counts would reveal much about few people; expires: seconds since
    1970 after which clients no longer answer, 0 for never. Refused reports are only counted,
    in `refused`. All counts are int64.
    """

    def __init__(
        self, task: str, survey: Survey, minimum_reports: int = 1, expires: int = 0
    ) -> None:
        if survey.tallies:
            raise PrivacyError("An aggregator needs a fresh survey; load_state_dict resumes one.")
        for name, number in (("minimum_reports", minimum_reports), ("expires", expires)):
            if not is_index(number, 2**63):
                raise PrivacyError(f"{name} must be an integer of at least 0, got {number!r}.")
        self.task = check_task(task)
        self.survey = survey
        self.minimum_reports = max(1, minimum_reports)
        self.expires = expires
        self.open: dict[int, OpenRound] = {}
        self.refused: Counter[Refusal] = Counter()
        self.archive: set[bytes] = set()  # ids of reports in closed rounds

    def begin_round(self, index: int | None = None) -> RoundDescription:
        """Open a round, by default the next one, and return the description for clients.

        Several rounds may be open at once where the method allows it. Raises RoundError for a round
        that is open, closed, unknown, or waits for an earlier one.
        """
        index = self._next_round() if index is None else index
        if index in self.open or index in self.survey.tallies:
            raise RoundError(f"Round {index} has already begun.")
        description = describe(self.survey, index, self.task, self.expires)
        one_hot = self.survey.question(index).randomizer.one_hot
        self.open[index] = OpenRound(description, one_hot)
        return description

    def add(self, reports: Iterable[bytes]) -> Receipt:
        """Count whole reports as received from clients, of any open rounds and in any order."""
        by_length: dict[int, list[bytes]] = defaultdict(list)
        refused: Counter[Refusal] = Counter()
        for report in reports:
            if isinstance(report, bytes):
                by_length[len(report)].append(report)
            else:
                refused[Refusal.NOT_BYTES] += 1
        accepted = 0
        for length, group in by_length.items():
            block = np.frombuffer(b"".join(group), dtype=np.uint8).reshape(len(group), length)
            accepted += self._add_block(block, refused)
        self.refused.update(refused)
        return Receipt(accepted, refused)

    def add_packed(self, index: int, identifiers: Bytes, payloads: NDArray[np.uint8]) -> Receipt:
        """Count the payloads (n, bytes) of one open round, with report ids (n, 16)."""
        if identifiers.shape != (len(payloads), IDENTIFIER_BYTES) or identifiers.dtype != np.uint8:
            raise PrivacyError(f"{len(payloads)} reports need as many ids of 16 bytes.")
        open_round = self._open_round(index)
        width = open_round.width
        if payloads.shape[1:] != (payload_bytes(width),) or payloads.dtype != np.uint8:
            raise PrivacyError(
                f"Payloads of {width} bits are rows of {payload_bytes(width)} uint8."
            )
        refused: Counter[Refusal] = Counter()
        accepted = self._count(open_round, identifiers, payloads, refused)
        self.refused.update(refused)
        return Receipt(accepted, refused)

    def tally(self, index: int) -> Tally:
        """The counts of an open round so far."""
        open_round = self._open_round(index)
        return Tally(open_round.counts.copy(), open_round.reports)

    def replace_tally(self, index: int, counts: Counts, reports: int) -> None:
        """Take the sums over several processes, each of which counted its own reports.

        Raises RoundError for counts that such reports cannot have.
        """
        open_round = self._open_round(index)
        randomizer = self.survey.question(index).randomizer
        counts, reports = check_tally(index, Tally(counts, reports), randomizer)
        if reports < len(open_round.seen):
            raise MergeError(f"Round {index} has more reports here than in all processes.")
        open_round.counts, open_round.reports = counts.copy(), reports

    def merge(self, other: Aggregator) -> None:
        """Add the counts of another aggregator of the same survey in the open rounds.

        Raises MergeError, and changes nothing, where the two are not at the same point or
        where both hold the same report.
        """
        if self._position() != other._position():
            raise MergeError("The two aggregators are not at the same point of the same survey.")
        if any(not self._unknown(open_round.seen) for open_round in other.open.values()):
            raise MergeError("Both aggregators have counted the same report; nothing was merged.")
        for index, open_round in self.open.items():
            open_round.counts = open_round.counts + other.open[index].counts
            open_round.reports += other.open[index].reports
            open_round.seen |= other.open[index].seen
        self.archive |= other.archive
        self.refused.update(other.refused)

    def close_round(self, index: int | None = None) -> Tally:
        """Close a round, by default the lowest open one; later reports to it are refused.

        Raises RoundError where it has too few reports; the round then stays open.
        """
        if index is None and not self.open:
            raise RoundError("No round is open.")
        index = min(self.open) if index is None else index
        open_round = self._open_round(index)
        if open_round.reports < self.minimum_reports:
            raise RoundError(
                f"Round {index} has {open_round.reports} of the {self.minimum_reports} reports "
                "that it needs to be closed."
            )
        tally = Tally(open_round.counts, open_round.reports)
        self.survey.close(index, tally)
        self.archive |= self.open.pop(index).seen
        return tally

    def finish(self) -> RangeEstimate:
        """The survey's answers; raises RoundError while a round is not closed."""
        return self.survey.estimate()

    def state_dict(self) -> dict[str, Any]:
        """Everything counted so far, in plain containers of integers and text."""
        return {
            "version": STATE_VERSION,
            "survey": self._signature(),
            "closed": [_saved(i, tally) for i, tally in self.survey.tallies.items()],
            "open": [_saved(i, self.tally(i)) for i in self.open],
            "open_ids": [
                b"".join(sorted(open_round.seen)).hex() for open_round in self.open.values()
            ],
            "closed_ids": b"".join(sorted(self.archive)).hex(),
            "refused": {reason.name: count for reason, count in self.refused.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume where `state_dict` was taken; this aggregator's survey must be equal and fresh.

        Raises PrivacyError, and changes nothing, for the state of another survey, for an impossible
        state (counts above the reports, malformed ids), or where this survey has begun.
        """
        saved = read_state(state, self._signature())
        if self.survey.tallies or self.open:
            raise PrivacyError("A saved state can be loaded only before the first round begins.")
        trial = Aggregator(self.task, deepcopy(self.survey), self.minimum_reports, self.expires)
        trial._resume(saved)  # a round that does not fit raises here, before anything is changed
        self._resume(saved)

    def _resume(self, saved: SavedState) -> None:
        """Raises RoundError where a tally does not fit its round."""
        for index, tally in saved.closed.items():
            self.survey.close(index, tally)
        for index, tally in saved.open.items():
            self.begin_round(index)
            self.replace_tally(index, *tally)
            self.open[index].seen = set(saved.seen[index])
        self.archive, self.refused = set(saved.archive), Counter(saved.refused)

    def _add_block(self, block: Bytes, refused: Counter[Refusal]) -> int:
        """Reports of one length: those with the header of an open round, then the rest."""
        unmatched = np.ones(len(block), dtype=bool)
        accepted = 0
        for open_round in self.open.values():
            rows = np.flatnonzero(open_round.matches(block))
            if not len(rows):
                continue
            unmatched[rows] = False
            part = block if len(rows) == len(block) else block[rows]
            identifiers = part[:, PREFIX.size : PREFIX.size + IDENTIFIER_BYTES]
            accepted += self._count(open_round, identifiers, part[:, HEADER.size :], refused)
        for row in np.flatnonzero(unmatched):
            refused[self._reason(block[row].tobytes())] += 1
        return accepted

    def _count(
        self, open_round: OpenRound, identifiers: Bytes, payloads: Bytes, refused: Counter[Refusal]
    ) -> int:
        valid = open_round.valid(payloads, refused)
        if not valid.all():
            identifiers, payloads = identifiers[valid], payloads[valid]
        new = self._new(open_round, identifiers)
        if not new.all():
            refused[Refusal.DUPLICATE] += int((~new).sum())
            payloads = payloads[new]
        open_round.count(payloads)
        return len(payloads)

    def _new(self, open_round: OpenRound, identifiers: Bytes) -> NDArray[np.bool_]:
        """(n,) whether a report id is new; new ids are remembered."""
        ids = identifiers_of(identifiers)
        fresh = set(ids)
        if len(fresh) == len(ids) and self._unknown(fresh):
            open_round.seen |= fresh
            return np.ones(len(ids), dtype=bool)
        new = np.zeros(len(ids), dtype=bool)
        for row, identifier in enumerate(ids):
            new[row] = self._unknown({identifier})
            open_round.seen.add(identifier)
        return new

    def _unknown(self, ids: set[bytes]) -> bool:
        """Whether no round, open or closed, has counted one of these reports."""
        if not self.archive.isdisjoint(ids):
            return False
        return all(open_round.seen.isdisjoint(ids) for open_round in self.open.values())

    def _reason(self, report: bytes) -> Refusal:
        """Why a report matches no open round."""
        if len(report) < HEADER.size:
            return Refusal.WRONG_LENGTH
        version, key, index, partition, _, width = HEADER.unpack(report[: HEADER.size])
        if version != VERSION:
            return Refusal.UNKNOWN_VERSION
        if key != task_key(self.task):
            return Refusal.OTHER_TASK
        if index not in self.open:
            counted = index in self.survey.tallies
            return Refusal.CLOSED_ROUND if counted else Refusal.UNKNOWN_ROUND
        if partition != self.open[index].partition:
            return Refusal.OTHER_PARTITION
        return Refusal.WRONG_WIDTH if width != self.open[index].width else Refusal.WRONG_LENGTH

    def _next_round(self) -> int:
        begun = self.open.keys() | self.survey.tallies.keys()
        waiting = [index for index in range(self.survey.rounds) if index not in begun]
        if not waiting:
            raise RoundError("Every round has begun.")
        return waiting[0]

    def _open_round(self, index: int) -> OpenRound:
        if index not in self.open:
            raise RoundError(f"Round {index} is not open.")
        return self.open[index]

    def _signature(self) -> dict[str, Any]:
        return {"task": self.task, "expires": self.expires, **self.survey.signature()}

    def _position(self) -> tuple[Any, ...]:
        """What two aggregators must have in common to be merged."""
        hashes = {index: open_round.partition for index, open_round in self.open.items()}
        closed = {i: (t.counts.tolist(), t.reports) for i, t in self.survey.tallies.items()}
        return self._signature(), hashes, closed


def _saved(index: int, tally: Tally) -> dict[str, Any]:
    return {"round": index, "counts": tally.counts.tolist(), "reports": tally.reports}
