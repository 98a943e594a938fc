"""Bit-packed reports: rows of bytes, bit i of a report is bit i % 8 of byte i // 8."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.wire import payload_bytes

Bytes = NDArray[np.uint8]
Counts = NDArray[np.int64]
_ROWS_PER_LANE = 255  # a lane of 8 bits holds no larger sum


def _spread_bytes() -> NDArray[np.uint64]:
    """Entry b: eight lanes of 8 bits, lane i holding bit i of the byte b."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return np.ascontiguousarray(bits).view("<u8").ravel()


_LANES = _spread_bytes()


def count_bits(payloads: Bytes, width: int) -> Counts:
    """How many of the rows (n, ceil(width / 8)) have each bit set; int64, shape (width,)."""
    total = np.zeros(payloads.shape[1] * 8, dtype=np.int64)
    for start in range(0, len(payloads), _ROWS_PER_LANE):
        lanes = _LANES[payloads[start : start + _ROWS_PER_LANE]].sum(axis=0, dtype=np.uint64)
        total += lanes.astype("<u8").view(np.uint8)
    return total[:width]


def pack_bits(bits: NDArray[np.bool_]) -> Bytes:
    """Rows of booleans (n, width) as rows of bytes; pad bits are zero."""
    return np.packbits(bits, axis=1, bitorder="little")


def pack_one_hot(outputs: NDArray[np.int64], width: int) -> Bytes:
    """Rows with the single bit outputs[row]."""
    payloads = np.zeros((len(outputs), payload_bytes(width)), dtype=np.uint8)
    payloads[np.arange(len(outputs)), outputs >> 3] = 1 << (outputs & 7)
    return payloads


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
