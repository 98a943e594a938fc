"""Reads what `Aggregator.state_dict` wrote, and checks all of it before any of it is used."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from equipoise.privacy.client.errors import PrivacyError
from equipoise.privacy.client.round import MOST_CELLS, is_index
from equipoise.privacy.collection.open_round import Refusal, identifiers_of_hex
from equipoise.privacy.mechanisms.survey import Tally

STATE_VERSION = 1
LARGEST = 2**63  # counts are int64
KEYS = {"version", "survey", "closed", "open", "open_ids", "closed_ids", "refused"}


class SavedState(NamedTuple):
    """Tallies by round, closed and open; ids of the reports of open rounds, and of closed ones."""

    closed: dict[int, Tally]
    open: dict[int, Tally]
    seen: dict[int, set[bytes]]
    archive: set[bytes]
    refused: Counter[Refusal]


def read_state(state: object, signature: dict[str, Any]) -> SavedState:
    """The parts of a saved state of the survey that has this signature.

    Whether a tally fits its round is checked when the tally is taken in. Raises PrivacyError for
    the state of another survey, and for anything that `state_dict` does not write.
    """
    if not isinstance(state, dict) or not _fits(state, signature):
        raise PrivacyError("The saved state belongs to another survey or another version.")
    if state.keys() != KEYS:
        raise damaged(f"it needs the entries {', '.join(sorted(KEYS))}")
    closed_rounds, open_rounds = read_rounds(state["closed"]), read_rounds(state["open"])
    if closed_rounds.keys() & open_rounds.keys():
        raise damaged("a round is both open and closed")
    ids = state["open_ids"]
    if not isinstance(ids, list) or len(ids) != len(open_rounds):
        raise damaged("each open round needs the ids of its reports")
    seen = {index: identifiers_of_hex(text) for index, text in zip(open_rounds, ids, strict=True)}
    archive = identifiers_of_hex(state["closed_ids"])
    _check_ids(closed_rounds, open_rounds, seen, archive)
    return SavedState(closed_rounds, open_rounds, seen, archive, _refusals(state["refused"]))


def read_rounds(saved: object) -> dict[int, Tally]:
    """Tallies by round, in the order of the list; raises PrivacyError."""
    if not isinstance(saved, list):
        raise damaged("its rounds are not a list")
    rounds: dict[int, Tally] = {}
    for entry in saved:
        index, tally = _read_round(entry)
        if index in rounds:
            raise damaged(f"round {index} occurs in it twice")
        rounds[index] = tally
    return rounds


def damaged(reason: str) -> PrivacyError:
    """The error for a state that `state_dict` cannot have written."""
    return PrivacyError(f"The saved state is damaged: {reason}; use an earlier one.")


def _fits(state: dict[str, Any], signature: dict[str, Any]) -> bool:
    try:
        return bool(state.get("version") == STATE_VERSION and state.get("survey") == signature)
    except (ValueError, RecursionError):  # of values that cannot be compared
        return False


def _read_round(entry: object) -> tuple[int, Tally]:
    if not isinstance(entry, dict) or entry.keys() != {"round", "counts", "reports"}:
        raise damaged("a round needs its number, its counts and its number of reports")
    index, counts, reports = entry["round"], entry["counts"], entry["reports"]
    if not is_index(index, MOST_CELLS + 1) or not is_index(reports, LARGEST):
        raise damaged("a round or its number of reports is not a valid number")
    if not isinstance(counts, list) or not all(is_index(count, LARGEST) for count in counts):
        raise damaged(f"the counts of round {index} are not a list of report counts")
    return index, Tally(np.array(counts, dtype=np.int64), reports)


def _check_ids(
    closed_rounds: dict[int, Tally],
    open_rounds: dict[int, Tally],
    seen: dict[int, set[bytes]],
    archive: set[bytes],
) -> None:
    """Each report has one id, but ids of reports counted by another process are kept there."""
    groups = [archive, *seen.values()]
    most = [sum(tally.reports for tally in closed_rounds.values())]
    most += [tally.reports for tally in open_rounds.values()]
    if any(len(ids) > reports for ids, reports in zip(groups, most, strict=True)):
        raise damaged("it has more ids than reports")
    if len(set().union(*groups)) < sum(len(ids) for ids in groups):
        raise damaged("an id occurs in two rounds")


def _refusals(saved: object) -> Counter[Refusal]:
    reasons = Refusal.__members__
    if not isinstance(saved, dict) or not saved.keys() <= reasons.keys():
        raise damaged("it names unknown reasons for refusals")
    if not all(is_index(count, LARGEST) for count in saved.values()):
        raise damaged("a number of refused reports is not a valid number")
    return Counter({reasons[name]: count for name, count in saved.items()})
