"""Fitted weights against linear programming, closed forms and each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from equipoise.commands.ensemble.simplex_weights import (
    EPOCHS,
    Fit,
    fit,
    fit_adam,
    fit_convex,
    gap_at,
    least_on_simplex,
)  # fmt: skip
from equipoise.commands.ensemble.submission_errors import SubmissionErrors
from equipoise.report.couplings import FLOOR


def silent() -> None:
    """What a fit calls after each step, where nobody looks on."""


def drawn(submissions: int, couplings: int, seed: int) -> SubmissionErrors:
    """Correlated errors of submissions of different quality."""
    generator = np.random.default_rng(seed)
    quality = np.exp(generator.standard_normal((submissions, 1)))
    own = quality * generator.standard_normal((submissions, couplings))
    return SubmissionErrors.of_array(
        (own + generator.standard_normal(couplings)).astype(np.float32)
    )


def matrix_of(errors: SubmissionErrors) -> np.ndarray:
    """The errors (M, N), to look at or to change."""
    return errors.stored.reshape(errors.submissions, -1)


def least_mae(errors: SubmissionErrors) -> float:
    """The least MAE of a blend: the linear programme with a bound on each |r|."""
    matrix = matrix_of(errors).astype(np.float64)
    submissions, couplings = matrix.shape
    bounds = -np.eye(couplings)
    solved = linprog(
        np.r_[np.zeros(submissions), np.full(couplings, 1 / couplings)],
        np.block([[matrix.T, bounds], [-matrix.T, bounds]]), np.zeros(2 * couplings),
        np.r_[np.ones(submissions), np.zeros(couplings)][None], [1],
    )  # fmt: skip
    return float(solved.fun)


@given(st.integers(1, 8), st.integers(2, 60), st.integers(0, 2**32 - 1))
@example(3, 3, 0)
@example(8, 2, 1)
@example(3, 2, 1)
@settings(max_examples=60, deadline=None)
def test_one_type_is_solved_as_linear_programming_does(
    submissions: int, couplings: int, seed: int
) -> None:
    errors = drawn(submissions, couplings, seed)
    found = fit_convex(errors, [slice(0, couplings)], silent)
    assert found.weights.min() >= 0
    assert found.weights.sum() == pytest.approx(1)
    mae, least = np.exp(found.objective), least_mae(errors)
    found_mae = np.abs(found.weights @ matrix_of(errors)).mean()
    assert mae == pytest.approx(max(found_mae, FLOOR), rel=1e-6, abs=1e-9)
    assert least * (1 - 1e-9) - 1e-7 <= mae
    assert mae * (1 - found.gap) <= least + 1e-7
    assert found.gap < 2e-4


def test_the_gap_proves_the_optimum_of_many_couplings() -> None:
    errors = drawn(20, 4000, 0)
    found = fit_convex(errors, [slice(0, 4000)], silent)
    assert found.gap < 1e-5
    adam = fit_adam(errors, [slice(0, 4000)], 0, silent)
    assert found.objective <= adam.objective <= found.objective + 0.01
    assert adam.gap > adam.objective - found.objective


def test_several_types_are_stationary_and_better_than_by_adam() -> None:
    errors = drawn(12, 3000, 1)
    blocks = [slice(0, 300), slice(300, 1000), slice(1000, 3000)]
    found = fit_convex(errors, blocks, silent)
    assert found.gap < 1e-5
    assert found.objective < fit_adam(errors, blocks, 0, silent).objective
    generator = np.random.default_rng(0)
    for other in generator.dirichlet(np.full(12, 0.3), 50):
        moved = 0.99 * found.weights + 0.01 * other
        assert gap_at(errors, blocks, moved).objective > found.objective - 1e-6


def test_weights_of_one_type_alone_are_at_least_as_good_for_it() -> None:
    errors = drawn(6, 2000, 2)
    blocks = [slice(0, 700), slice(700, 2000)]
    shared = fit_convex(errors, blocks, silent).weights
    for rows in blocks:
        own = fit_convex(errors, [rows], silent)
        assert own.objective <= np.log(np.abs(errors.blended(shared, rows)).mean()) + 1e-6


@pytest.mark.parametrize("solver", ["convex", "adam"])
def test_a_perfect_submission_gets_all_the_weight(solver: str) -> None:
    errors = drawn(4, 200, 3)
    matrix_of(errors)[2] = 0
    found = fit(errors, [slice(0, 90), slice(90, 200)], solver, 0, silent)  # type: ignore[arg-type]
    assert found.weights[2] == pytest.approx(1, abs=1e-3)
    assert found.objective < -7


def test_equal_submissions_share_and_hinder_nothing() -> None:
    errors = drawn(3, 500, 4)
    twice = errors.only([0, 1, 2, 0, 1, 2])
    one, other = (fit_convex(e, [slice(0, 500)], silent) for e in (errors, twice))
    assert other.objective == pytest.approx(one.objective, abs=2e-5)
    assert other.weights[:3] + other.weights[3:] == pytest.approx(one.weights, abs=0.02)


def test_opposite_errors_cancel() -> None:
    base = np.random.default_rng(5).standard_normal(1000).astype(np.float32)
    errors = SubmissionErrors.of_array(np.stack([3 * base, -base]))
    found = fit_convex(errors, [slice(0, 1000)], silent)
    assert found.weights == pytest.approx([0.25, 0.75], abs=1e-6)


def test_adam_is_a_function_of_the_seed_and_tells_each_epoch() -> None:
    errors, told = drawn(4, 100, 6), []
    fits: list[Fit] = [
        fit_adam(errors, [slice(0, 100)], seed, lambda: told.append(1)) for seed in (1, 1, 2)
    ]
    assert (fits[0].weights == fits[1].weights).all()
    assert (fits[0].weights != fits[2].weights).any()
    assert len(told) == 3 * EPOCHS


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_the_least_of_a_quadratic_on_the_simplex_is_stationary(size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    root = generator.standard_normal((size, size))
    curvature, slope = root @ root.T + 0.1 * np.eye(size), 3 * generator.standard_normal(size)
    found = least_on_simplex(curvature, slope)
    gradient = curvature @ found + slope
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    assert gradient @ found - gradient.min() == pytest.approx(0, abs=1e-7)
