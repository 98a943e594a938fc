"""Why an aggregator leaves a report out."""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import NamedTuple


class Refusal(str, Enum):
    """The first rule that a report breaks."""

    NOT_BYTES = "not bytes"
    WRONG_LENGTH = "wrong length"
    UNKNOWN_VERSION = "unknown version"
    OTHER_TASK = "another task"
    UNKNOWN_ROUND = "a round that has not begun"
    CLOSED_ROUND = "a closed round"
    OTHER_PARTITION = "another partition's hash"
    WRONG_WIDTH = "wrong number of bits"
    PAD_BITS = "pad bits set"
    NOT_ONE_HOT = "not exactly one bit set"
    DUPLICATE = "a report id seen before"


class Receipt(NamedTuple):
    """What became of a batch of reports."""

    accepted: int
    refused: Counter[Refusal]
