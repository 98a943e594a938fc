"""A round that is open for reports: what it expects, what it refuses, what it has counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
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
from equipoise.privacy.oracles.randomizer import Bytes, Counts

# Fields of 1, 2 and 4 bits are spread over fields twice as wide; then as many of these are added as
# cannot overflow: 3 times 1 in 2 bits, 5 times 3 in 4, 17 times 15 in 8.
_STAGES = ((1, 3, 0x5555555555555555), (2, 5, 0x3333333333333333), (4, 17, 0x0F0F0F0F0F0F0F0F))
_ROWS_PER_LANE = 3 * 5 * 17
_WORDS_AT_ONCE = 1 << 14  # 128 kB: fits the cache, and allocations of it are cheap


def count_bits(payloads: Bytes, width: int) -> Counts:
    """How many of the rows (n, ceil(width / 8)) have each bit set; int64, shape (width,).

    Words of 64 bits are added as vectors of small integers (a bit-sliced counter), at most 255 rows
    before the sums are moved to int64.
    """
    words = -(-payloads.shape[1] // 8)
    rows = _ROWS_PER_LANE * max(1, _WORDS_AT_ONCE // (_ROWS_PER_LANE * max(1, words)))
    total = np.zeros((words * 8, 8), dtype=np.int64)
    for start in range(0, len(payloads), rows):
        block = payloads[start : start + rows]
        padded = np.zeros((-(-len(block) // _ROWS_PER_LANE) * _ROWS_PER_LANE, words * 8), np.uint8)
        padded[: len(block), : block.shape[1]] = block
        for bit, lanes in _lanes(padded.view("<u8"), 0):
            sums = lanes.astype("<u8").view(np.uint8)
            total[:, bit] += sums.sum(axis=0, dtype=np.int64)
    return total.ravel()[:width]


def _lanes(fields: NDArray[np.uint64], stage: int) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """For each bit of a byte, its sums over the rows in lanes of 8 bits."""
    if stage == len(_STAGES):
        yield 0, fields
        return
    width, group, mask = _STAGES[stage]
    for shift in (0, width):
        spread = (fields >> np.uint64(shift)) & np.uint64(mask)
        sums = spread.reshape(group, -1).sum(axis=0, dtype=np.uint64)
        for bit, lanes in _lanes(sums.reshape(-1, fields.shape[1]), stage + 1):
            yield shift + bit, lanes


def has_pad_bits(payloads: Bytes, width: int) -> NDArray[np.bool_]:
    """(n,) whether a bit beyond `width` is set."""
    used = width % 8
    if used == 0:
        return np.zeros(len(payloads), dtype=bool)
    return payloads[:, -1] >> used != 0


def is_one_hot(payloads: Bytes) -> NDArray[np.bool_]:
    """(n,) whether exactly one bit is set."""
    single = (payloads != 0).sum(axis=1) == 1
    byte = payloads.max(axis=1)
    return single & ((byte & (byte - np.uint8(1))) == 0)


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
    """The outcome of a batch of reports."""

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
        """(n,) whether this round's randomizer can make the payloads; counts those it cannot."""
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
    """The ids that follow one another in a text of hexadecimal digits.

    Raises PrivacyError for any other text, for an incomplete id, and for an id that occurs twice.
    """
    joined = bytes_of_hex(text)
    if len(joined) % IDENTIFIER_BYTES:
        raise PrivacyError(f"Report ids of {IDENTIFIER_BYTES} bytes each were expected.")
    ids = identifiers_of(np.frombuffer(joined, dtype=np.uint8))
    if len(set(ids)) < len(ids):
        raise PrivacyError("A report id occurs twice, but each must occur once.")
    return set(ids)
