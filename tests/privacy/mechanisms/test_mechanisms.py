"""Every method: what it answers without noise, its standard errors, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.range_queries.populations import population, random_ranges, true_fractions
from equipoise.privacy import (
    Ahead,
    AheadPairs,
    DiscreteHaarTransform,
    Flat,
    HierarchicalHistogram,
    HierarchicalIntervals,
    HybridDimensionalGrids,
    Mechanism,
    PrivacyError,
    RoundError,
    SmoothedSquareWave,
    Tally,
    Uniform,
    check_values,
    simulate_counts,
    simulate_histogram,
    split_threshold,
)
from equipoise.privacy.mechanisms import survey

ONE_ATTRIBUTE: list[Mechanism] = [
    Flat(),
    HierarchicalIntervals(),
    HierarchicalIntervals(branching=3),
    DiscreteHaarTransform(),
    HierarchicalHistogram(),
    Ahead(),
    Ahead(branching=4),
    Ahead(mode="paper"),
    Ahead(mode="released"),
    SmoothedSquareWave(smooth=False),
]
LINEAR: list[Mechanism] = [
    Flat(),
    HierarchicalIntervals(),
    DiscreteHaarTransform(),
    Ahead(mode="paper"),
    Ahead(),
]


def label(mechanism: Mechanism) -> str:
    return f"{mechanism.name}-{getattr(mechanism, 'mode', '')}{getattr(mechanism, 'branching', '')}"


def test_the_published_thresholds() -> None:
    assert split_threshold(100_000, 10, 1.0, 2) == pytest.approx(0.03323866, abs=5e-9)
    assert split_threshold(100_000, 8, 1.0, 4) == pytest.approx(0.03838070, abs=5e-9)
    survey = Ahead().survey(1024, 1.0, 100_000)
    assert (survey.rounds, survey.threshold) == (10, split_threshold(100_000, 10, 1.0, 2))
    plane = Ahead(theta_scale=2.0).survey((256, 256), 1.0, 100_000)
    assert (plane.rounds, plane.threshold) == (8, 2 * split_threshold(100_000, 8, 1.0, 4))


@pytest.mark.parametrize("size", [64, 74])
@pytest.mark.parametrize("mechanism", ONE_ATTRIBUTE, ids=label)
def test_a_huge_epsilon_and_many_people_leave_no_error(
    mechanism: Mechanism, size: int, generator: np.random.Generator
) -> None:
    """74 is no power of any branching: padded, not cut. OUE keeps a variance of f / n."""
    values = population("zipf", 100_000, size, generator)
    histogram = np.bincount(values, minlength=size) * 10_000
    survey = mechanism.survey(size, 20.0, int(histogram.sum()))
    estimate = simulate_histogram(survey, histogram, generator)
    ranges = random_ranges(200, size, 1, generator)
    errors = np.abs(estimate.answer(ranges) - true_fractions(values, ranges))
    assert errors.max() < 2e-3
    assert estimate.query((0, size)).value == pytest.approx(1.0, abs=1e-3)
    assert estimate.marginal() == pytest.approx(histogram / histogram.sum(), abs=2e-3)


@pytest.mark.parametrize("domain", [(16, 16), (10, 24)])
@pytest.mark.parametrize("mechanism", [Flat(), Ahead(), Ahead(mode="paper"), AheadPairs()])
def test_a_huge_epsilon_leaves_no_error_in_two_attributes(
    mechanism: Mechanism, domain: tuple[int, int], generator: np.random.Generator
) -> None:
    histogram = generator.integers(0, 10_000_000, domain)
    survey = mechanism.survey(domain, 20.0, int(histogram.sum()))
    estimate = simulate_histogram(survey, histogram, generator)
    ranges = np.stack([random_ranges(200, size, 1, generator)[:, 0] for size in domain], axis=1)
    truth = [histogram[a:b, c:d].sum() / histogram.sum() for (a, b), (c, d) in ranges]
    assert np.abs(estimate.answer(ranges) - truth).max() < 2e-3


@pytest.mark.parametrize("mechanism", LINEAR, ids=label)
def test_standard_errors_are_those_of_repeated_surveys(
    mechanism: Mechanism, generator: np.random.Generator
) -> None:
    """Zipf in 16 values at a size where every method splits nearly all that has mass."""
    values = population("zipf", 20_000, 16, generator)
    ranges = random_ranges(40, 16, 1, generator)
    ranges = ranges[(ranges[:, 0, 1] > ranges[:, 0, 0]) & (np.ptp(ranges, axis=2)[:, 0] < 16)]
    truth = true_fractions(values, ranges)
    ratios = []
    for _ in range(150):
        estimate = simulate_counts(mechanism.survey(16, 1.0, len(values)), values, generator)
        ratios.append((estimate.answer(ranges) - truth) / estimate.standard_error(ranges))
    spread = np.sqrt(np.mean(np.square(ratios)))
    assert 0.6 < spread < 1.25


def test_paper_and_released_weights_of_a_fresh_binary_node() -> None:
    """2/3 and 3/4 of the node itself, in a tree with two levels."""
    for mode, own in (("paper", 2 / 3), ("released", 3 / 4)):
        survey = Ahead(mode=mode, theta_scale=0.0).survey(4, 3.0, 1000)
        survey.close(0, Tally(np.array([300, 200]), 500))
        survey.close(1, Tally(np.array([250, 100, 80, 60]), 500))
        estimate = survey.estimate()
        measured = estimate.measurements.mean
        expected = own * measured[1] + (1 - own) * (measured[3] + measured[4])
        assert estimate.values[1] == pytest.approx(expected)


def test_the_tree_grows_where_the_people_are(generator: np.random.Generator) -> None:
    values = np.full(50_000, 777)
    survey = Ahead().survey(1024, 1.0, len(values))
    estimate = simulate_counts(survey, values, generator)
    smallest = survey.tree.volumes()[survey.tree.leaves].min()
    assert smallest == 1
    assert len(survey.tree) < 80
    assert estimate.query((777, 778)).value == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    "mechanism", [Ahead(), Ahead(mode="paper"), AheadPairs(), HybridDimensionalGrids(), Flat()],
    ids=label,
)  # fmt: skip
@pytest.mark.parametrize("domain", [(16, 16), (10, 24)])
def test_two_attributes(
    mechanism: Mechanism, domain: tuple[int, int], generator: np.random.Generator
) -> None:
    columns = [population("gaussian", 400_000, size, generator) for size in domain]
    columns[1] = np.where(generator.random(400_000) < 0.5, columns[0] * domain[1] // domain[0],
                          columns[1])  # fmt: skip
    values = np.stack(columns, axis=1)
    survey = mechanism.survey(domain, 4.0, len(values))
    estimate = simulate_counts(survey, values, generator)
    ranges = np.stack([random_ranges(60, size, 1, generator)[:, 0] for size in domain], axis=1)
    errors = estimate.answer(ranges) - true_fractions(values, ranges)
    assert np.sqrt((errors**2).mean()) < 0.025
    assert estimate.query((0, domain[0]), (0, domain[1])).value == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("mechanism", [Ahead(), AheadPairs(), HybridDimensionalGrids()], ids=label)
def test_three_attributes_have_answers_and_trees_standard_errors(
    mechanism: Mechanism, generator: np.random.Generator
) -> None:
    values = np.stack([population("laplace", 200_000, 16, generator) for _ in range(3)], axis=1)
    estimate = simulate_counts(mechanism.survey((16,) * 3, 4.0, 200_000), values, generator)
    ranges = random_ranges(30, 16, 3, generator)
    errors = estimate.answer(ranges) - true_fractions(values, ranges)
    assert np.sqrt((errors**2).mean()) < 0.02
    deviations = estimate.standard_error(ranges)
    if isinstance(mechanism, Ahead):
        assert deviations is not None
        assert ((deviations >= 0) & (deviations < 0.2)).all()
    else:
        assert deviations is None


def test_an_adaptive_round_waits_for_the_one_before() -> None:
    survey = Ahead().survey(64, 1.0, 1000)
    with pytest.raises(RoundError, match="depends on an earlier round"):
        survey.question(1)
    with pytest.raises(RoundError, match="no round 6"):
        survey.question(6)
    pairs = AheadPairs().survey((8, 8, 8), 1.0, 1000)
    assert [pairs.ready(index) for index in range(4)] == [True, True, True, False]
    with pytest.raises(RoundError, match="not closed yet"):
        pairs.estimate()


def test_a_round_without_reports_is_refused() -> None:
    survey = Ahead().survey(4, 1.0, 10)
    with pytest.raises(RoundError, match="has no report"):
        survey.close(0, Tally(np.zeros(2, dtype=np.int64), 0))
    survey.close(0, Tally(np.array([1, 1]), 2))
    with pytest.raises(RoundError, match="already closed"):
        survey.close(0, Tally(np.array([1, 1]), 2))


@pytest.mark.parametrize("epsilon", [0.0, -0.5, math.nan])
@pytest.mark.parametrize("mechanism", [*ONE_ATTRIBUTE, Uniform()], ids=label)
def test_every_method_refuses_a_wrong_epsilon(mechanism: Mechanism, epsilon: float) -> None:
    with pytest.raises(PrivacyError, match="epsilon must be a number above 0"):
        mechanism.survey(64, epsilon, 1000)


@pytest.mark.parametrize("domain", [1, 0, -4, (), (4, 1), (2.5,)])
@pytest.mark.parametrize("mechanism", [Ahead(), Flat(), SmoothedSquareWave()], ids=label)
def test_a_domain_of_one_value_is_refused(mechanism: Mechanism, domain: int) -> None:
    with pytest.raises(PrivacyError, match=r"at least (two|one)"):
        mechanism.survey(domain, 1.0, 1000)


def test_fewer_users_than_rounds_are_refused() -> None:
    for mechanism in (Ahead(), DiscreteHaarTransform()):
        with pytest.raises(PrivacyError, match="9 users cannot fill 10 rounds"):
            mechanism.survey(1024, 1.0, 9)
    with pytest.raises(PrivacyError, match="2 users cannot"):
        AheadPairs().survey((8, 8, 8), 1.0, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 64], "1 value.s. of attribute 0 lie outside 0 to 63, the first is 64"),
        ([-1, 3], "the first is -1"),
        ([1.5, 2], "not an integer"),
        ([1, math.nan], "missing"),
        ([1, None], "missing|no number"),
        (["a", "b"], "not a number"),
        ([[1, 2]], "1 attribute"),
    ],
)
def test_wrong_values_are_refused(values: list[object], message: str) -> None:
    with pytest.raises(PrivacyError, match=message):
        check_values(values, (64,))


def test_whole_floats_are_values() -> None:
    assert check_values([1.0, 63.0], (64,)).tolist() == [[1], [63]]


@pytest.mark.parametrize("ranges", [[[0, 65]], [[-1, 3]], [[5, 4]], [[0.5, 2]], [[1, 2, 3]]])
def test_wrong_ranges_are_refused(ranges: list[list[float]]) -> None:
    estimate = Uniform().survey(64, 1.0, 10).estimate()
    with pytest.raises(PrivacyError):
        estimate.answer(ranges)


def test_methods_for_one_attribute_or_several_say_so() -> None:
    for mechanism in (DiscreteHaarTransform(), SmoothedSquareWave()):
        with pytest.raises(PrivacyError, match="takes one attribute"):
            mechanism.survey((8, 8), 1.0, 100)
    for several in (AheadPairs(), HybridDimensionalGrids()):
        with pytest.raises(PrivacyError, match="at least two attributes"):
            several.survey(8, 1.0, 100)
    with pytest.raises(PrivacyError, match="mode must be one of"):
        Ahead(mode="fast")  # type: ignore[arg-type]
    with pytest.raises(PrivacyError, match="too large"):
        Flat().survey((4096, 4096), 1.0, 100)
    with pytest.raises(PrivacyError, match="too many; use ahead_pairs"):
        Ahead().survey((2,) * 13, 1.0, 100)
    with pytest.raises(PrivacyError, match="at most 12 attributes"):
        AheadPairs().survey((4,) * 13, 1.0, 1000)


@pytest.mark.parametrize("mechanism", [Flat(), AheadPairs(), HybridDimensionalGrids()], ids=label)
def test_a_value_is_located_in_the_one_box_that_holds_it_by_map_and_by_comparison(
    mechanism: Mechanism, generator: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = mechanism.survey((10, 24), 4.0, 500).question(0)
    values = generator.integers(0, (10, 24), (500, 2))
    by_map = question.locate(values)
    columns = values[:, list(question.attributes)]
    assert ((question.low[by_map] <= columns) & (columns < question.high[by_map])).all()
    monkeypatch.setattr(survey, "_LARGEST_MAP", 0)
    monkeypatch.setattr(survey, "_COMPARISONS_AT_ONCE", 7 * question.low.size)  # in 72 parts
    np.testing.assert_array_equal(question.locate(values), by_map)


def test_tables_that_cannot_be_counted_are_refused() -> None:
    for values, message in (([[1, 2], [3]], "rows of one length"), ([1e300, 1], "too large")):
        with pytest.raises(PrivacyError, match=message):
            check_values(values, (64,))
    with pytest.raises(PrivacyError, match="theta_scale"):
        Ahead(theta_scale=-1.0)
