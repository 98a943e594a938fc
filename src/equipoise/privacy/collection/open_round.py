"""A round that is open for reports: what it expects, what it refuses, what it has counted."""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.client.errors import PrivacyError
from equipoise.privacy.client.round import RoundDescription
from equipoise.privacy.client.wire import (
    HEADER,
    IDENTIFIER_BYTES,
    WIDTH_OFFSET,
    bytes_of_hex,
    payload_bytes,
    round_prefix,
)
from equipoise.privacy.collection.packing import count_bits, has_pad_bits, is_one_hot
from equipoise.privacy.oracles.randomizer import Bytes


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


class OpenRound:
    """Counts int64 (width,) of set bits, the number of reports, and their ids."""

    def __init__(self, description: RoundDescription, one_hot: bool) -> None:
        self.description = description
        self.one_hot = one_hot
        self.partition = description.partition_hash()
        self.width = description.outputs
        self.counts = np.zeros(self.width, dtype=np.int64)
        self.reports = 0
        self.seen: set[bytes] = set()
        self._prefix = np.frombuffer(round_prefix(description), dtype=np.uint8)
        self._width = np.frombuffer(self.width.to_bytes(2, "little"), dtype=np.uint8)

    def matches(self, block: Bytes) -> NDArray[np.bool_]:
        """(n,) whether rows of equal length are reports to this round, by header and length."""
        if block.shape[1] != HEADER.size + payload_bytes(self.width):
            return np.zeros(len(block), dtype=bool)
        prefix = (block[:, : len(self._prefix)] == self._prefix).all(axis=1)
        width = (block[:, WIDTH_OFFSET : WIDTH_OFFSET + 2] == self._width).all(axis=1)
        return prefix & width

    def valid(self, payloads: Bytes, refused: Counter[Refusal]) -> NDArray[np.bool_]:
        """(n,) whether the payloads can come from this round's randomizer; the rest is counted."""
        valid = ~has_pad_bits(payloads, self.width)
        if not valid.all():
            refused[Refusal.PAD_BITS] += int((~valid).sum())
        single = is_one_hot(payloads) if self.one_hot else valid
        if not single[valid].all():
            refused[Refusal.NOT_ONE_HOT] += int((valid & ~single).sum())
        return valid & single

    def count(self, payloads: Bytes) -> None:
        """Add valid payloads (n, bytes)."""
        self.counts += count_bits(payloads, self.width)
        self.reports += len(payloads)


def identifiers_of(rows: Bytes) -> list[bytes]:
    """The rows (n, 16) as bytes."""
    joined = np.ascontiguousarray(rows).tobytes()
    size = IDENTIFIER_BYTES
    return [joined[start : start + size] for start in range(0, len(joined), size)]


def identifiers_of_hex(text: object) -> set[bytes]:
    """The ids that stand one after the other in a text of hexadecimal digits.

    Raises PrivacyError for another text, for a part of an id, and for an id that stands twice.
    """
    joined = bytes_of_hex(text)
    if len(joined) % IDENTIFIER_BYTES:
        raise PrivacyError(f"Report ids of {IDENTIFIER_BYTES} bytes each were expected.")
    ids = identifiers_of(np.frombuffer(joined, dtype=np.uint8))
    if len(set(ids)) < len(ids):
        raise PrivacyError("A report's id stands twice where each was to stand once.")
    return set(ids)
