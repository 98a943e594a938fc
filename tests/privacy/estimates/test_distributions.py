"""Maximum entropy: it keeps what is known of pairs, and adds nothing to it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from equipoise.privacy.estimates.distributions import (
    expectation_maximization,
    fit_matrix,
    joint_probability,
    pair_quadrants,
    smoothed,
)
from equipoise.privacy.oracles import SquareWave


def test_independent_events_multiply(generator: np.random.Generator) -> None:
    single = generator.uniform(0.1, 0.9, (20, 4))
    pairs = np.stack([single[:, a] * single[:, b] for a, b in combinations(range(4), 2)], axis=1)
    joint = joint_probability(single, pairs, tolerance=1e-12)
    np.testing.assert_allclose(joint, single.prod(axis=1), atol=1e-9)


def test_an_event_that_implies_another_adds_nothing(generator: np.random.Generator) -> None:
    """A within B, C independent of both: P(ABC) = P(A) P(C)."""
    a, c = generator.uniform(0.1, 0.4, 10), generator.uniform(0.2, 0.8, 10)
    b = a + 0.3
    joint = joint_probability(np.stack((a, b, c), 1), np.stack((a, a * c, b * c), 1), 1e-12, 5000)
    np.testing.assert_allclose(joint, a * c, atol=1e-6)


def test_impossible_pairs_are_moved_to_what_is_possible() -> None:
    quadrants = pair_quadrants(np.array([[0.3, 0.8], [1.2, -0.1]]), np.array([[0.9], [0.5]]))
    assert quadrants.min() >= 0
    np.testing.assert_allclose(quadrants.sum(axis=(2, 3)), 1.0)
    assert quadrants[0, 0, 1, 1] == pytest.approx(0.3)


def test_a_matrix_keeps_its_margins(generator: np.random.Generator) -> None:
    rows, columns = generator.dirichlet(np.ones(6)), generator.dirichlet(np.ones(4))
    constraints = [
        (np.eye(6), np.ones((4, 1)), rows[:, None]),
        (np.ones((1, 6)), np.eye(4), columns[None]),
    ]
    matrix = fit_matrix(np.full((6, 4), 1 / 24), constraints, 50, 1e-12)
    np.testing.assert_allclose(matrix, np.outer(rows, columns), atol=1e-12)


def test_expectation_maximization_finds_the_frequencies_behind_exact_counts() -> None:
    wave = SquareWave(8, 2.0)
    truth = np.array([0.05, 0.1, 0.3, 0.2, 0.15, 0.1, 0.05, 0.05])
    counts = wave.expected(truth) * 1e6
    found = expectation_maximization(wave, counts, False, 1e-9, 20_000)
    np.testing.assert_allclose(found, truth, atol=5e-3)


def test_smoothing_keeps_the_sum_and_a_constant() -> None:
    assert smoothed(np.array([0.0, 0, 1, 0, 0])).tolist() == [0, 0.25, 0.5, 0.25, 0]
    np.testing.assert_allclose(smoothed(np.full(5, 0.2)), 0.2)
