"""Simulated surveys: nobody is lost or counted twice, and the ways agree."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.range_queries.populations import population, random_ranges, true_fractions
from equipoise.privacy import (
    Aggregator,
    Ahead,
    AheadPairs,
    DiscreteHaarTransform,
    Mechanism,
    PrivacyError,
    RoundError,
    Uniform,
    simulate_counts,
    simulate_histogram,
    simulate_reports,
)
from equipoise.privacy.collection.simulation import assign_rounds


@pytest.mark.parametrize("mechanism", [Ahead(), Ahead(mode="paper"), DiscreteHaarTransform()])
@pytest.mark.parametrize("users", [200, 5001])  # each user by itself, and by histogram
def test_every_user_is_in_exactly_one_round(
    mechanism: Mechanism, users: int, generator: np.random.Generator
) -> None:
    values = population("zipf", users, 64, generator)
    survey = mechanism.survey(64, 1.0, users)
    simulate_counts(survey, values, generator)
    reports = [tally.reports for tally in survey.tallies.values()]
    assert sum(reports) == users
    assert len(reports) == 6
    expected = users / 6
    assert np.abs(np.array(reports) - expected).max() < 6 * np.sqrt(expected)


def test_users_of_one_value_are_spread_over_the_rounds_as_single_users_are(
    generator: np.random.Generator,
) -> None:
    """Errors of 150 surveys of either way agree within four standard errors."""
    values = population("gaussian", 5_000, 1024, generator)
    histogram = np.bincount(values, minlength=1024)
    ranges = random_ranges(100, 1024, 1, generator)
    truth = true_fractions(values, ranges)
    errors = np.empty((2, 150))
    for run in range(150):
        surveys = [Ahead(mode="paper").survey(1024, 2.0, len(values)) for _ in range(2)]
        by_histogram = simulate_histogram(surveys[0], histogram, generator)
        # 1024 values in 10 rounds are more than 5,000 users: each user's round is drawn
        one_by_one = simulate_counts(surveys[1], values, generator)
        for way, estimate in enumerate((by_histogram, one_by_one)):
            errors[way, run] = ((estimate.answer(ranges) - truth) ** 2).mean()
    doubt = np.hypot(*(errors.std(axis=1) / np.sqrt(150)))
    assert abs(errors[0].mean() - errors[1].mean()) < 4 * doubt


def test_a_histogram_of_two_attributes_keeps_them_apart(generator: np.random.Generator) -> None:
    histogram = np.zeros((4, 8), dtype=np.int64)
    histogram[1, 6] = 10**8
    for mechanism in (Ahead(), AheadPairs()):
        survey = mechanism.survey((4, 8), 4.0, 10**8)
        estimate = simulate_histogram(survey, histogram, generator)
        assert estimate.query((1, 2), (6, 7)).value == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize(
    ("histogram", "message"),
    [
        ([1, 2, 3], "must have the shape"),
        ([1, -2, 3, 4], "no negative number"),
        ([0, 0, 0, 0], "at least one"),
        ([1, 2.5, 3, 4], "not an integer"),
    ],
)
def test_a_wrong_histogram_is_refused(
    histogram: list[float], message: str, generator: np.random.Generator
) -> None:
    with pytest.raises(PrivacyError, match=message):
        simulate_histogram(Ahead().survey(4, 1.0, 10), histogram, generator)


def test_a_domain_larger_than_the_memory_is_never_spelled_out(
    generator: np.random.Generator,
) -> None:
    """2^60 combinations: neither the guess without rounds nor pairs of attributes count them."""
    values = generator.integers(0, 2**12, (500, 5))
    for mechanism in (Uniform(), AheadPairs()):
        survey = mechanism.survey((2**12,) * 5, 1.0, len(values))
        estimate = simulate_counts(survey, values, generator)
        assert 0 <= estimate.query(*[(0, 2**11)] * 5).value < 0.5


def test_nobody_is_asked_where_a_method_has_no_round(generator: np.random.Generator) -> None:
    survey = Uniform().survey(16, 1.0, 50)
    assert assign_rounds(survey, 50, generator).tolist() == [0] * 50
    with pytest.raises(RoundError, match="no round 0"):
        survey.question(0)


def test_batches_of_nothing_are_refused(generator: np.random.Generator) -> None:
    aggregator = Aggregator("ages", Ahead().survey(4, 1.0, 10))
    with pytest.raises(PrivacyError, match="batch_size"):
        simulate_reports(aggregator, np.zeros(10, dtype=np.int64), generator, batch_size=0)
