"""What every randomizer offers: reports of single users, and counts of many at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.budget import SCALE, check_epsilon, probability_threshold
from equipoise.privacy.errors import PrivacyError
from equipoise.privacy.packing import Bytes, Counts, pack_one_hot
from equipoise.privacy.round import RandomizerName

Generator = np.random.Generator
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Randomizer(ABC):
    """A client's cell, one of `cells`, becomes a report of `outputs` bits.

    Everything that draws here simulates clients with a pseudo-random generator, for studies and
    tests; a deployed client uses `equipoise.privacy.client` alone.
    """

    name: ClassVar[RandomizerName]
    one_hot: ClassVar[bool]  # whether a report has exactly one bit set

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
        """(cells, outputs) of each output, given the cell; rows sum to 1."""

    def simulate(self, histogram: Counts, generator: Generator) -> Counts:
        """Exact either way: a draw for each user or, for many, a multinomial for each cell."""
        if histogram.sum() > self.cells * self.outputs:
            return generator.multinomial(histogram, self.probabilities()).sum(axis=0)
        users = np.repeat(np.arange(len(histogram)), histogram)
        return np.bincount(self.draw(users, generator), minlength=self.outputs)

    def perturb(self, cells: Integers, generator: Generator) -> Bytes:
        """One bit a row."""
        return pack_one_hot(self.draw(cells, generator), self.outputs)


def unlikely_probability(epsilon: float, favoured: int, others: int) -> float:
    """The probability that the client's integer threshold gives: 1 / (favoured e^eps + others)."""
    return probability_threshold(epsilon, favoured, others) / SCALE
