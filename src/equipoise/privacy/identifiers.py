"""Report ids: 16 random bytes each, as rows of an array, as a set, as text."""

from __future__ import annotations

import numpy as np

from equipoise.privacy.packing import Bytes
from equipoise.privacy.wire import IDENTIFIER_BYTES


def identifiers_of(rows: Bytes) -> list[bytes]:
    """The rows (n, 16) as bytes."""
    joined = np.ascontiguousarray(rows).tobytes()
    size = IDENTIFIER_BYTES
    return [joined[start : start + size] for start in range(0, len(joined), size)]


def identifiers_of_hex(text: str) -> set[bytes]:
    """The ids that stand one after the other in a text of hexadecimal digits."""
    rows = np.frombuffer(bytes.fromhex(text), dtype=np.uint8).reshape(-1, IDENTIFIER_BYTES)
    return set(identifiers_of(rows))
