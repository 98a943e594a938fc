"""What the rounds have measured at each node of a tree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.oracles import FrequencyOracle

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass
class Measurements:
    """Running weighted means, and what their variance consists of; every array is (nodes,).

    The variance at frequency f is noise + slope f + sampling f (1 - f): the randomizer on an empty
    cell, what an occupied cell adds, and the chance of who is in which round. fewest: reports of
    the smallest round.
    """

    mean: Floats
    weight: Floats
    noise: Floats
    slope: Floats
    sampling: Floats
    fewest: float = math.inf

    @classmethod
    def none(cls, nodes: int) -> Measurements:
        """Nothing measured but the root, whose frequency is 1 by definition."""
        mean, weight, noise, slope, sampling = np.zeros((5, nodes))
        mean[0] = 1.0
        return cls(mean, weight, noise, slope, sampling)

    def add(
        self,
        nodes: Integers,
        estimate: Floats,
        weight: float,
        oracle: FrequencyOracle,
        reports: int,
    ) -> None:
        """Take in one round's estimates of `nodes`, with a weight beside the earlier rounds'."""
        self.fewest = min(self.fewest, reports)
        self.weight[nodes] += weight
        new = weight / self.weight[nodes]
        self.mean[nodes] += new * (estimate - self.mean[nodes])
        parts = (
            (self.noise, oracle.variance(reports)),
            (self.slope, oracle.variance_slope(reports)),
            (self.sampling, 1 / reports),
        )
        for array, added in parts:
            array[nodes] = (1 - new) ** 2 * array[nodes] + new**2 * added

    def known_noise(self) -> Floats:
        """The noise variance, infinite where a node was never measured."""
        return np.where(self.weight > 0, self.noise, np.inf)

    def variance(self, frequencies: Floats) -> Floats:
        """The whole variance at these frequencies, taken into [0, 1]; 0 at the root."""
        f = np.clip(frequencies, 0.0, 1.0)
        return self.noise + self.slope * f + self.sampling * f * (1 - f)
