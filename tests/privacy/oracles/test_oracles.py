"""Randomizers: unbiasedness, variances, exact privacy ratios, and the two simulated paths."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from equipoise.privacy import PrivacyError
from equipoise.privacy.collection.packing import count_bits
from equipoise.privacy.oracles import (
    FrequencyOracle,
    GeneralizedRandomizedResponse,
    HaarHadamard,
    OptimizedUnaryEncoding,
    Randomizer,
    SquareWave,
    frequency_oracle,
)
from equipoise.privacy.oracles.randomizer import OneHotRandomizer

EPSILONS = (0.5, 1.0, 4.0)
HISTOGRAM = np.array([500, 300, 150, 50, 0])
ORACLES = (OptimizedUnaryEncoding, GeneralizedRandomizedResponse)
ONE_HOT = (GeneralizedRandomizedResponse, SquareWave, HaarHadamard)
RANDOMIZERS = (*ORACLES, SquareWave, HaarHadamard)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_the_bits_of_unary_encoding_have_the_exact_privacy_ratio(epsilon: float) -> None:
    """k = 4: every report under every two values; the largest ratio is e^epsilon."""
    oracle = OptimizedUnaryEncoding(4, epsilon)

    def probability(bits: tuple[int, ...], cell: int) -> float:
        rates = [oracle.p if i == cell else oracle.q for i in range(4)]
        return math.prod(rate if bit else 1 - rate for bit, rate in zip(bits, rates, strict=True))

    ratios = [
        probability(bits, a) / probability(bits, b)
        for bits in product((0, 1), repeat=4)
        for a, b in product(range(4), repeat=2)
    ]
    assert math.log(max(ratios)) == pytest.approx(epsilon, abs=1e-12)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_the_other_randomizers_have_the_exact_privacy_ratio(epsilon: float) -> None:
    response, wave = GeneralizedRandomizedResponse(9, epsilon), SquareWave(64, epsilon)
    haar = HaarHadamard(8, epsilon)
    assert math.log(response.p / response.q) == pytest.approx(epsilon, abs=1e-12)
    assert math.log(wave.p / wave.q) == pytest.approx(epsilon, abs=1e-12)
    assert math.log((1 - haar.flip) / haar.flip) == pytest.approx(epsilon, abs=1e-12)


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("kind", ONE_HOT)
def test_every_output_has_the_privacy_ratio(kind: type[OneHotRandomizer], epsilon: float) -> None:
    """All outputs under all pairs of cells; the largest ratio is e^epsilon."""
    matrix = kind(8, epsilon).probabilities()
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-12)
    ratio = (matrix.max(axis=0) / matrix.min(axis=0)).max()
    assert math.log(ratio) == pytest.approx(epsilon, abs=1e-12)


@pytest.mark.parametrize("kind", ONE_HOT)
def test_draws_have_the_stated_probabilities(
    kind: type[OneHotRandomizer], generator: np.random.Generator
) -> None:
    randomizer, draws = kind(6, 1.0), 40_000
    for cell, row in enumerate(randomizer.probabilities()):
        outputs = randomizer.draw(np.full(draws, cell), generator)
        seen = np.bincount(outputs, minlength=randomizer.outputs) / draws
        assert (np.abs(seen - row) < 5 * np.sqrt(row / draws)).all()


@pytest.mark.parametrize("kind", ONE_HOT)
def test_counts_of_many_users_have_the_stated_mean(
    kind: type[OneHotRandomizer], generator: np.random.Generator
) -> None:
    """More users than cells times outputs: a multinomial for each cell."""
    randomizer, histogram = kind(5, 1.0), HISTOGRAM * 10**7
    mean = histogram @ randomizer.probabilities()
    counts = randomizer.simulate(histogram, generator)
    assert counts.sum() == histogram.sum()
    assert (np.abs(counts - mean) < 5 * np.sqrt(mean)).all()


def test_the_probabilities_of_a_square_wave_sum_to_one() -> None:
    wave = SquareWave(37, 1.3)
    matrix = np.stack([wave.expected(row) for row in np.eye(37)], axis=1)
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0, rtol=1e-12)
    transposed = np.stack([wave.expected_transposed(row) for row in np.eye(wave.outputs)], axis=1)
    np.testing.assert_allclose(transposed, matrix.T, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", ORACLES)
def test_estimates_are_unbiased_with_the_stated_variance(
    kind: type[FrequencyOracle], epsilon: float, generator: np.random.Generator
) -> None:
    """50,000 repeats: the standard error of a variance ratio is 0.0063."""
    oracle, users = kind(5, epsilon), int(HISTOGRAM.sum())
    counts = np.array([oracle.simulate(HISTOGRAM, generator) for _ in range(50_000)])
    estimates = oracle.estimate(counts, users)
    truth = HISTOGRAM / users
    variance = oracle.variance(users) + truth * oracle.variance_slope(users)
    doubt = 5 * np.sqrt(variance / len(estimates))
    assert (np.abs(estimates.mean(axis=0) - truth) < doubt).all()
    np.testing.assert_allclose(estimates.var(axis=0) / variance, 1.0, atol=0.03)


def test_the_variance_of_unary_encoding_is_the_published_one() -> None:
    oracle = OptimizedUnaryEncoding(7, 1.0)
    expected = 4 * math.e / (1000 * (math.e - 1) ** 2)
    assert oracle.variance(1000) == pytest.approx(expected, rel=1e-12)
    assert oracle.variance_slope(1000) == pytest.approx(1 / 1000, rel=1e-12)


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("cells", [2, 5, 9, 20, 60])
def test_the_choice_takes_the_lower_variance(cells: int, epsilon: float) -> None:
    chosen = frequency_oracle("auto", cells, epsilon)
    assert chosen.variance(100) == min(kind(cells, epsilon).variance(100) for kind in ORACLES)


@pytest.mark.parametrize("kind", RANDOMIZERS)
def test_sums_of_packed_reports_have_the_distribution_of_simulated_sums(
    kind: type[Randomizer], generator: np.random.Generator
) -> None:
    """Means and covariances of the counts agree: 3,000 repeats of 40 users on either path."""
    randomizer = kind(5, 1.0)
    histogram = HISTOGRAM // 25
    cells = np.repeat(np.arange(5), histogram)
    sums = np.array([randomizer.simulate(histogram, generator) for _ in range(3000)])
    packed = randomizer.perturb(np.tile(cells, 3000), generator).reshape(3000, len(cells), -1)
    counted = np.array([count_bits(rows, randomizer.outputs) for rows in packed])
    deviation = sums.std(axis=0).max()
    np.testing.assert_allclose(counted.mean(axis=0), sums.mean(axis=0), atol=0.13 * deviation)
    np.testing.assert_allclose(np.cov(counted.T), np.cov(sums.T), atol=0.15 * deviation**2)


def test_haar_coefficients_are_unbiased(generator: np.random.Generator) -> None:
    oracle = HaarHadamard(8, 1.0)
    histogram = np.array([400, 100, 50, 50, 0, 200, 100, 100])
    estimates = np.array(
        [
            oracle.coefficients(oracle.simulate(histogram, generator), 1000)
            for _ in range(2000)
        ]
    )  # fmt: skip
    truth = (histogram[::2] - histogram[1::2]) / 1000
    doubt = 5 * np.sqrt(oracle.variance(1000) / 2000)
    assert (np.abs(estimates.mean(axis=0) - truth) < doubt).all()
    np.testing.assert_allclose(estimates.var(axis=0) / oracle.variance(1000), 1.0, atol=0.2)


@pytest.mark.parametrize("epsilon", [0, -1, math.nan, math.inf, 41, "1", True, None])
def test_a_wrong_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(PrivacyError, match="epsilon must be a number"):
        OptimizedUnaryEncoding(4, epsilon)


def test_a_question_with_one_answer_is_refused() -> None:
    with pytest.raises(PrivacyError, match="at least two cells"):
        OptimizedUnaryEncoding(1, 1.0)
