"""Hadamard randomized response of one level of Haar coefficients (the oracle of DHT)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.client.round import RandomizerName
from equipoise.privacy.oracles.randomizer import (
    Counts,
    Floats,
    Generator,
    Integers,
    OneHotRandomizer,
    unlikely_probability,
)


@dataclass(frozen=True)
class HaarHadamard(OneHotRandomizer):
    """Cells are half nodes: 2 i the left, 2 i + 1 the right half of node i.

    The user's vector is s e_i, s = 1 on the left and -1 on the right; it reports a uniform row j of
    the Hadamard matrix and the sign s H_ij, flipped with probability 1 / (e^eps + 1), as the output
    2 j + [sign > 0]. Source: Cormode, Kulkarni and Srivastava 2019 (PVLDB 12), section 4.3.
    """

    name: ClassVar[RandomizerName] = "haar_hadamard"

    @property
    def nodes(self) -> int:
        """Number of coefficients, a power of 2."""
        return 1 << ((self.cells + 1) // 2 - 1).bit_length()

    @property
    def outputs(self) -> int:
        """A row and a sign."""
        return 2 * self.nodes

    @property
    def flip(self) -> float:
        """Probability that the sign is flipped."""
        return unlikely_probability(self.epsilon, 1, 1)

    def draw(self, cells: Integers, generator: Generator) -> Integers:
        """One row and one sign for each user."""
        row = generator.integers(0, self.nodes, len(cells))
        negative = (cells & 1).astype(bool) ^ _parity((cells >> 1) & row)
        flipped = generator.random(len(cells)) < self.flip
        return 2 * row + (negative == flipped)

    def probabilities(self) -> Floats:
        """1 / nodes for the row, times `flip` for the wrong sign of its entry."""
        cell, row = np.arange(self.cells)[:, None], np.arange(self.nodes)
        negative = (cell & 1).astype(bool) ^ _parity((cell >> 1) & row)
        positive = np.where(negative, self.flip, 1 - self.flip) / self.nodes
        signs = np.stack((1 / self.nodes - positive, positive), axis=2)
        return signs.reshape(self.cells, self.outputs)

    def coefficients(self, counts: Counts, reports: int) -> Floats:
        """Unbiased f(left) - f(right) of each node, (nodes,)."""
        signs = (counts[1::2] - counts[::2]).astype(np.float64)
        return hadamard_transform(signs) / (reports * (1 - 2 * self.flip))

    def variance(self, reports: int) -> float:
        """Bound on the variance of a coefficient: 1 / (reports (1 - 2 flip)^2)."""
        return 1.0 / (reports * (1 - 2 * self.flip) ** 2)


def hadamard_transform(vector: Floats) -> Floats:
    """H v for H_ij = (-1)^(number of common bits of i and j); the length is a power of 2."""
    result = vector.copy()
    half = 1
    while half < len(result):
        pairs = result.reshape(-1, 2, half)
        result = np.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), axis=1).ravel()
        half *= 2
    return result


def _parity(numbers: Integers) -> NDArray[np.bool_]:
    """Whether the number of set bits (of up to 32) is odd."""
    folded = numbers
    for shift in (16, 8, 4, 2, 1):
        folded = folded ^ (folded >> shift)
    return (folded & 1).astype(bool)
