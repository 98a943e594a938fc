"""Optimized unary encoding (OUE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.client.round import RandomizerName
from equipoise.privacy.client.wire import payload_bytes
from equipoise.privacy.oracles.randomizer import (
    Bytes,
    Counts,
    FrequencyOracle,
    Generator,
    Integers,
    unlikely_probability,
)

_DRAWS_AT_ONCE = 1 << 22
_SIMULATION_BITS = 32


@dataclass(frozen=True)
class OptimizedUnaryEncoding(FrequencyOracle):
    """OUE: every bit is drawn independently, p = 1/2, q = 1 / (e^epsilon + 1).

    The variance of a cell of frequency f is 4 e^eps / (n (e^eps - 1)^2) + f / n.
    Source: Wang et al. 2017 (USENIX Security), section 4.3.
    """

    name: ClassVar[RandomizerName] = "oue"
    one_hot: ClassVar[bool] = False

    @property
    def p(self) -> float:
        """One half."""
        return 0.5

    @property
    def q(self) -> float:
        """1 / (e^epsilon + 1)."""
        return unlikely_probability(self.epsilon, 1, 1)

    def simulate(self, histogram: Counts, generator: Generator) -> Counts:
        """Bin(n_j, p) + Bin(n - n_j, q) for each cell j.

        Exact, also jointly: given the values, the bits are independent over users and cells.
        """
        others = histogram.sum() - histogram
        return generator.binomial(histogram, self.p) + generator.binomial(others, self.q)

    def perturb(self, cells: Integers, generator: Generator) -> Bytes:
        """Bits against thresholds of 32 bits, which are within 2.4e-10 of the client's."""
        packed = np.empty((len(cells), payload_bytes(self.cells)), dtype=np.uint8)
        rows = max(1, _DRAWS_AT_ONCE // self.cells)
        for start in range(0, len(cells), rows):
            part = slice(start, start + rows)
            packed[part] = pack_bits(self._bits(cells[part], generator))
        return packed

    def _bits(self, cells: Integers, generator: Generator) -> np.ndarray:
        shape = (len(cells), self.cells)
        draws = generator.integers(0, 1 << _SIMULATION_BITS, shape, dtype=np.uint32)
        bits = draws < np.uint32(round(self.q * (1 << _SIMULATION_BITS)))
        rows = np.arange(len(cells))
        bits[rows, cells] = draws[rows, cells] < np.uint32(1 << (_SIMULATION_BITS - 1))
        return bits


def pack_bits(bits: NDArray[np.bool_]) -> Bytes:
    """Rows of booleans (n, width) as rows of bytes; pad bits are zero."""
    return np.packbits(bits, axis=1, bitorder="little")
