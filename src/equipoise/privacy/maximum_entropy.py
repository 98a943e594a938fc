"""The distribution of highest entropy that agrees with what is known of every pair."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_SMALLEST = 1e-12


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
