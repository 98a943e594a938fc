"""Square wave (SW), in its discrete form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from equipoise.privacy.client.randomizers import square_wave_radius
from equipoise.privacy.client.round import RandomizerName
from equipoise.privacy.oracles.randomizer import (
    Floats,
    Generator,
    Integers,
    OneHotRandomizer,
    unlikely_probability,
)


@dataclass(frozen=True)
class SquareWave(OneHotRandomizer):
    """Cell v is reported as one of v .. v + 2b with p each, as any other of the k + 2b with q.

    p = e^eps q, q = 1 / ((2b + 1) e^eps + k - 1). Near values stay near, as suits ordinal data.
    Source: Li et al. 2020 (SIGMOD), section 5.
    """

    name: ClassVar[RandomizerName] = "square_wave"

    @property
    def window(self) -> int:
        """2b + 1."""
        return 2 * square_wave_radius(self.cells, self.epsilon) + 1

    @property
    def outputs(self) -> int:
        """k + 2b."""
        return self.cells + self.window - 1

    @property
    def q(self) -> float:
        """Probability of a single output outside the window."""
        return unlikely_probability(self.epsilon, self.window, self.cells - 1)

    @property
    def p(self) -> float:
        """Probability of a single output inside the window."""
        return (1.0 - (self.cells - 1) * self.q) / self.window

    def draw(self, cells: Integers, generator: Generator) -> Integers:
        """With probability (p - q)(2b + 1) uniform in the window, else uniform in all outputs."""
        near = cells + generator.integers(0, self.window, len(cells))
        anywhere = generator.integers(0, self.outputs, len(cells))
        truthful = generator.random(len(cells)) < (self.p - self.q) * self.window
        return np.where(truthful, near, anywhere)

    def probabilities(self) -> Floats:
        """p in the band of `window` outputs that starts at the cell, q elsewhere."""
        shift = np.arange(self.outputs) - np.arange(self.cells)[:, None]
        return np.where((shift >= 0) & (shift < self.window), self.p, self.q)

    def expected(self, frequencies: Floats) -> Floats:
        """Probabilities (outputs,) of the reports for frequencies (cells,) of the cells."""
        total = np.concatenate(([0.0], np.cumsum(frequencies)))
        outputs = np.arange(self.outputs)
        above = total[np.minimum(outputs + 1, self.cells)]
        below = total[np.maximum(outputs + 1 - self.window, 0)]
        return self.q * total[-1] + (self.p - self.q) * (above - below)

    def expected_transposed(self, weights: Floats) -> Floats:
        """The transposed map: weights (outputs,) to (cells,)."""
        total = np.concatenate(([0.0], np.cumsum(weights)))
        near = total[self.window :] - total[: self.cells]
        return self.q * total[-1] + (self.p - self.q) * near
