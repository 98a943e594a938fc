"""Report ids: 16 random bytes each, as rows of an array, as a set, as text."""

from __future__ import annotations

import numpy as np

from equipoise.privacy.errors import PrivacyError
from equipoise.privacy.packing import Bytes
from equipoise.privacy.wire import IDENTIFIER_BYTES, bytes_of_hex


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
