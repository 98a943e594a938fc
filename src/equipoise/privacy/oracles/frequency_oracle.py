"""Frequency oracles: randomizers whose counts give unbiased frequencies of the cells."""

from __future__ import annotations

from abc import abstractmethod

from equipoise.privacy.oracles.randomizer import Floats, Randomizer
from equipoise.privacy.packing import Counts


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
        """What a cell of frequency f adds, over f: (1 - p - q) / (reports (p - q))."""
        return (1 - self.p - self.q) / (reports * (self.p - self.q))
