"""Expectation maximisation for the square wave, with smoothing (EMS) or without (EM)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.oracles import SquareWave
from equipoise.privacy.packing import Counts

Floats = NDArray[np.float64]


def expectation_maximization(
    randomizer: SquareWave, counts: Counts, smooth: bool, tolerance: float, max_iterations: int
) -> Floats:
    """The most likely frequencies (cells,) for the counts (outputs,) of the reports.

    Stops when the log-likelihood gains less than `tolerance`. Each iteration costs O(cells), since
    the square wave's matrix is a constant plus a band. Source: Li et al. 2020, section 5.5.
    """
    frequencies = np.full(randomizer.cells, 1.0 / randomizer.cells)
    expected = randomizer.expected(frequencies)
    likelihood = -np.inf
    for _ in range(max_iterations):
        frequencies = frequencies * randomizer.expected_transposed(counts / expected)
        frequencies /= frequencies.sum()
        if smooth:
            frequencies = smoothed(frequencies)
        expected = randomizer.expected(frequencies)
        before, likelihood = likelihood, float(counts @ np.log(expected))
        if abs(likelihood - before) < tolerance:
            break
    return frequencies


def smoothed(frequencies: Floats) -> Floats:
    """Each value's average with its neighbours, weights 1, 2, 1; the ends have one neighbour."""
    padded = np.pad(frequencies, 1)
    result = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    result[1:-1] /= 4
    result[[0, -1]] /= 3
    return result / result.sum()
