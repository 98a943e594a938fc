"""The interface of every randomizer: reports of single users, and counts of many at once.

Frequency oracles are randomizers whose counts give unbiased frequencies of the cells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.client.errors import PrivacyError
from equipoise.privacy.client.randomizers import SCALE, probability_threshold
from equipoise.privacy.client.round import RandomizerName, check_epsilon
from equipoise.privacy.client.wire import payload_bytes

Generator = np.random.Generator
Bytes = NDArray[np.uint8]  # packed reports: bit i of a row is bit i % 8 of byte i // 8
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Randomizer(ABC):
    """A client's cell, one of `cells`, becomes a report of `outputs` bits.

    All draws here simulate clients with a pseudo-random generator, for studies and
    tests; a deployed client uses only `equipoise.privacy.client.client`.
    """

    name: ClassVar[RandomizerName]
    one_hot: ClassVar[bool]  # whether every report has exactly one bit set

    cells: int
    epsilon: float

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        if self.cells < 2:
            raise PrivacyError(f"A round needs at least two cells to ask for, got {self.cells}.")

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of bits of a report."""

    @abstractmethod
    def simulate(self, histogram: Counts, generator: Generator) -> Counts:
        """Counts (outputs,) of set bits, as from users spread over the cells like `histogram`."""

    @abstractmethod
    def perturb(self, cells: Integers, generator: Generator) -> Bytes:
        """Packed reports (n, ceil(outputs / 8)), one for each user's cell."""


class OneHotRandomizer(Randomizer):
    """A randomizer whose report is one of `outputs` values."""

    one_hot: ClassVar[bool] = True

    @abstractmethod
    def draw(self, cells: Integers, generator: Generator) -> Integers:
        """The output of each user's cell."""

    @abstractmethod
    def probabilities(self) -> Floats:
        """(cells, outputs) probabilities of each output, given the cell; rows sum to 1."""

    def simulate(self, histogram: Counts, generator: Generator) -> Counts:
        """Exact either way: one draw per user or, for many users, a multinomial per cell."""
        if histogram.sum() > self.cells * self.outputs:
            return generator.multinomial(histogram, self.probabilities()).sum(axis=0)
        users = np.repeat(np.arange(len(histogram)), histogram)
        return np.bincount(self.draw(users, generator), minlength=self.outputs)

    def perturb(self, cells: Integers, generator: Generator) -> Bytes:
        """One bit per row."""
        return pack_one_hot(self.draw(cells, generator), self.outputs)


class FrequencyOracle(Randomizer):
    """A bit is set with probability `p` for the user's own cell and `q` for any other.

    Source: Wang et al. 2017 (USENIX Security), the "pure" protocols.
    """

    @property
    @abstractmethod
    def p(self) -> float:
        """Probability of the bit of the user's own cell."""

    @property
    @abstractmethod
    def q(self) -> float:
        """Probability of any other bit."""

    @property
    def outputs(self) -> int:
        """One bit for each cell."""
        return self.cells

    def estimate(self, counts: Counts, reports: int) -> Floats:
        """Unbiased frequencies (cells,): (counts / reports - q) / (p - q)."""
        return (counts / reports - self.q) / (self.p - self.q)

    def variance(self, reports: int) -> float:
        """Variance of the estimate of an empty cell: q (1 - q) / (reports (p - q)^2)."""
        return self.q * (1 - self.q) / (reports * (self.p - self.q) ** 2)

    def variance_slope(self, reports: int) -> float:
        """The variance that a cell adds per frequency: (1 - p - q) / (reports (p - q))."""
        return (1 - self.p - self.q) / (reports * (self.p - self.q))


def pack_one_hot(outputs: Integers, width: int) -> Bytes:
    """Rows with the single bit outputs[row]."""
    payloads = np.zeros((len(outputs), payload_bytes(width)), dtype=np.uint8)
    payloads[np.arange(len(outputs)), outputs >> 3] = 1 << (outputs & 7)
    return payloads


def unlikely_probability(epsilon: float, favoured: int, others: int) -> float:
    """The probability of the client's integer threshold: 1 / (favoured e^eps + others)."""
    return probability_threshold(epsilon, favoured, others) / SCALE
