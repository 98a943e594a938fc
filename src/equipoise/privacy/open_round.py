"""A round that is open for reports: what it expects, and what it has counted."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.packing import Bytes, count_bits, has_pad_bits, is_one_hot
from equipoise.privacy.refusal import Refusal
from equipoise.privacy.round import RoundDescription
from equipoise.privacy.wire import HEADER, WIDTH_OFFSET, payload_bytes, round_prefix


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
