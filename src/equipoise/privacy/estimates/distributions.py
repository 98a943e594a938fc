"""Distributions from inexact frequencies: nearest (Norm-Sub), likeliest, of highest entropy."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from equipoise.privacy.oracles import SquareWave
from equipoise.privacy.oracles.randomizer import Counts, Floats, Integers

_SMALLEST = 1e-12


def norm_sub(frequencies: Floats, total: float = 1.0) -> Floats:
    """max(f - d, 0) with the d for which the sum is `total` (not negative).

    Source: Wang et al. 2020 (NDSS), "Norm-Sub": the Euclidean projection on the simplex.
    """
    return norm_sub_families(frequencies, np.zeros(1, dtype=np.int64), np.array([total]))


def norm_sub_families(frequencies: Floats, starts: Integers, totals: Floats) -> Floats:
    """Norm-Sub of each family; family i is the entries from starts[i] to below starts[i + 1].

    An entry that becomes zero stays zero; each pass settles at least one entry of every family
    that is not yet settled, so the largest family's size bounds the number of passes.
    """
    sizes = np.diff(np.append(starts, len(frequencies)))
    positive = np.ones(len(frequencies), dtype=bool)
    while True:
        members = np.maximum(np.add.reduceat(positive.astype(np.int64), starts), 1)
        sums = np.add.reduceat(np.where(positive, frequencies, 0.0), starts)
        shifted = np.where(positive, frequencies - np.repeat((sums - totals) / members, sizes), 0.0)
        negative = shifted < 0
        if not negative.any():
            return shifted
        positive &= ~negative


def norm_sub_once(frequencies: Floats, total: float = 1.0) -> Floats:
    """One pass, as in the released AHEAD code: clip, then shift the positive entries.

    The result sums to `total` but may hold negative entries again.
    """
    clipped = np.maximum(frequencies, 0.0)
    positive = clipped > 0
    if not positive.any():
        return np.full_like(clipped, total / len(clipped))
    return clipped - positive * (clipped.sum() - total) / positive.sum()


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
    """Average each value with its neighbours, weights 1, 2, 1; the ends have one neighbour."""
    padded = np.pad(frequencies, 1)
    result = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    result[1:-1] /= 4
    result[[0, -1]] /= 3
    return result / result.sum()


def joint_probability(
    single: Floats, pairs: Floats, tolerance: float = 1e-5, max_iterations: int = 500
) -> Floats:
    """P(all of m events), from P(event) (n, m) and P(both) (n, pairs in order of combinations).

    Iterative proportional fitting of the 2^m outcomes of each query to the four outcomes of every
    pair, from equal probabilities, until they change by less than `tolerance` in total.
    Source: Du et al. 2021, section 5.2 and Zhang et al. 2018 (CALM).
    """
    queries, events = single.shape
    quadrants = pair_quadrants(single, pairs)
    outcomes = np.full((queries, *(2,) * events), 0.5**events)
    for _ in range(max_iterations):
        before = outcomes.copy()
        for index, pair in enumerate(combinations(range(events), 2)):
            outcomes = _fit(outcomes, pair, quadrants[:, index])
        if np.abs(outcomes - before).reshape(queries, -1).sum(axis=1).max(initial=0) < tolerance:
            break
    return outcomes.reshape(queries, -1)[:, -1]


def pair_quadrants(single: Floats, pairs: Floats) -> Floats:
    """(n, pairs, 2, 2) probabilities of (first, second) happening or not; index 1 is happening.

    P(both) is moved to where it is possible: between max(0, a + b - 1) and min(a, b).
    """
    first, second = np.array(list(combinations(range(single.shape[1]), 2))).T
    single = np.clip(single, 0.0, 1.0)
    a, b = single[:, first], single[:, second]
    both = np.clip(pairs, np.maximum(a + b - 1, 0), np.minimum(a, b))
    neither = np.maximum(1 - a - b + both, 0)
    quadrants = np.stack((neither, b - both, a - both, both), axis=2)
    return quadrants.reshape(*quadrants.shape[:2], 2, 2)


def _fit(outcomes: Floats, pair: tuple[int, int], target: Floats) -> Floats:
    """Scale the outcomes so that this pair's quadrants are the target (n, 2, 2)."""
    others = tuple(axis for axis in range(1, outcomes.ndim) if axis - 1 not in pair)
    current = outcomes.sum(axis=others, keepdims=True)
    return outcomes * (target.reshape(current.shape) / np.maximum(current, _SMALLEST))


def fit_matrix(
    initial: Floats, constraints: list[tuple[Floats, Floats, Floats]], iterations: int, tol: float
) -> Floats:
    """The matrix of highest entropy relative to `initial` whose block sums are as given.

    Each constraint is (rows, columns, sums) with rows @ matrix @ columns = sums, rows and columns
    being 0-1 matrices that group the matrix's rows and columns into disjoint blocks.
    """
    matrix = initial
    for _ in range(iterations):
        before = matrix
        for rows, columns, sums in constraints:
            factor = sums / np.maximum(rows @ matrix @ columns, _SMALLEST)
            matrix = matrix * (rows.T @ factor @ columns.T)
        if np.abs(matrix - before).sum() < tol:
            break
    return matrix
