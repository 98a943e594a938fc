"""Bit-packed reports, counted and checked many at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.oracles.randomizer import Bytes, Counts

# Fields of 1, 2 and 4 bits are spread over fields twice as wide, of which as many are then added as
# surely fit: 3 times 1 into 2 bits, 5 times 3 into 4, 17 times 15 into 8.
_STAGES = ((1, 3, 0x5555555555555555), (2, 5, 0x3333333333333333), (4, 17, 0x0F0F0F0F0F0F0F0F))
_ROWS_PER_LANE = 3 * 5 * 17
_WORDS_AT_ONCE = 1 << 14  # 128 kB: in the cache, and below where allocations get costly


def count_bits(payloads: Bytes, width: int) -> Counts:
    """How many of the rows (n, ceil(width / 8)) have each bit set; int64, shape (width,).

    Words of 64 bits are added as vectors of small integers (a bit-sliced counter), 255 rows at most
    before the sums are taken over into int64.
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
