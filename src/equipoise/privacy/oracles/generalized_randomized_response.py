"""Generalized randomized response (GRR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from equipoise.privacy.client.round import RandomizerName
from equipoise.privacy.oracles.randomizer import (
    Counts,
    Floats,
    FrequencyOracle,
    Generator,
    Integers,
    OneHotRandomizer,
    unlikely_probability,
)


@dataclass(frozen=True)
class GeneralizedRandomizedResponse(OneHotRandomizer, FrequencyOracle):
    """GRR: the user's own cell with p = e^eps / (e^eps + k - 1), any other with q = p / e^eps.

    Better than OUE for few cells, k < 3 e^eps + 2. Source: Wang et al. 2017, section 4.1.
    """

    name: ClassVar[RandomizerName] = "grr"

    @property
    def p(self) -> float:
        """1 - (k - 1) q."""
        return 1.0 - (self.cells - 1) * self.q

    @property
    def q(self) -> float:
        """1 / (e^epsilon + k - 1)."""
        return unlikely_probability(self.epsilon, 1, self.cells - 1)

    def probabilities(self) -> Floats:
        """p on the diagonal, q elsewhere."""
        return np.where(np.eye(self.cells, dtype=bool), self.p, self.q)

    def simulate(self, histogram: Counts, generator: Generator) -> Counts:
        """Exact without a draw per user: the own cell with p - q, else a uniform cell."""
        truthful = generator.binomial(histogram, self.p - self.q)
        others = int(histogram.sum() - truthful.sum())
        return truthful + generator.multinomial(others, np.full(self.cells, 1 / self.cells))

    def draw(self, cells: Integers, generator: Generator) -> Integers:
        """The user's cell with probability p - q, else any cell, that one included."""
        uniform = generator.integers(0, self.cells, len(cells))
        return np.where(generator.random(len(cells)) < self.p - self.q, cells, uniform)
