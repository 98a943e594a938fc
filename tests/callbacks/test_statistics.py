"""Statistics over many solves."""

from __future__ import annotations

import math

import pytest
import torch

from equipoise.callbacks.statistics import (
    COMPACT_EVERY,
    FiniteMean,
    Fraction,
    ResidualSample,
    SolveStatistics,
)
from equipoise.equilibrium import SolveReport, Status


def report(nfe: int, residual: list[float], status: list[Status]) -> SolveReport:
    """A report of one batch."""
    return SolveReport(
        nfe=nfe,
        residual=torch.tensor(residual),
        status=torch.tensor([int(s) for s in status], dtype=torch.int8),
    )


def test_batches_weigh_alike_in_nfe_and_samples_in_the_rest() -> None:
    statistics = SolveStatistics()
    statistics.add(report(4, [0.1], [Status.CONVERGED]))
    statistics.add(report(8, [0.2, 0.3, 0.4], [Status.CONVERGED, Status.BUDGET, Status.DIVERGED]))
    summary = statistics.forward_summary()
    assert summary["nfe_mean"] == 6.0
    assert summary["nfe_spent_per_sample"] == 7.0  # (4 + 3 * 8) / 4
    assert summary["converged_fraction"] == 0.5
    assert summary["residual_median"] == torch.tensor([0.1, 0.2, 0.3, 0.4]).quantile(0.5).item()


def test_a_sample_counts_to_its_convergence_and_a_batch_to_its_slowest() -> None:
    statistics = SolveStatistics()
    first = report(30, [0.1, 0.1, 0.2], [Status.CONVERGED, Status.CONVERGED, Status.BUDGET])
    first.steps = torch.tensor([6, 9, 11])  # the best iterate of the third was its eleventh
    statistics.add(first)
    summary = statistics.forward_summary()
    assert (summary["nfe_mean"], summary["nfe_per_sample"]) == (30.0, 15.0)


def test_an_estimator_that_solves_nothing_has_no_residual_and_no_fallback() -> None:
    statistics = SolveStatistics()
    statistics.add(SolveReport(nfe=5))
    assert statistics.backward_summary() == {
        "nfe_mean": 5.0,
        "residual_median": None,
        "fallback_fraction": 0.0,
    }


def test_fallbacks_are_counted_per_sample() -> None:
    statistics = SolveStatistics()
    statistics.add(SolveReport(nfe=1, fallback=torch.tensor([True, False, False, False])))
    assert statistics.backward_summary()["fallback_fraction"] == 0.25


def test_fraction_counts_across_compactions() -> None:
    fraction = Fraction()
    for number in range(300):
        fraction.add(torch.tensor([number % 3 == 0]))
    value = fraction.value()
    assert value is not None
    assert value.item() == torch.tensor(1 / 3).item()
    assert Fraction().value() is None


def test_quantiles_are_exact_below_the_capacity() -> None:
    residuals = torch.rand(1000)
    sample = ResidualSample()
    for part in residuals.split(7):
        sample.add(part)
    median, p95 = sample.quantiles(0.5, 0.95) or (None, None)
    expected = torch.quantile(residuals, torch.tensor([0.5, 0.95]))
    assert median == pytest.approx(expected[0].item())
    assert p95 == pytest.approx(expected[1].item())


def test_thinning_bounds_the_memory_and_keeps_early_and_late_alike() -> None:
    sample = ResidualSample(capacity=512)
    for value in torch.linspace(0, 1, 40_000).split(10):
        sample.add(value)
    (median,) = sample.quantiles(0.5) or (None,)
    assert sample.kept is not None
    assert sample.kept.numel() <= 512
    assert median == pytest.approx(0.5, abs=0.02)


def test_a_residual_that_is_not_finite_counts_as_infinite() -> None:
    sample = ResidualSample()
    sample.add(torch.tensor([1.0, 2.0, math.nan]))
    median, top = sample.quantiles(0.5, 0.95) or (None, None)
    assert median == 2.0
    assert top == math.inf


def test_without_residuals_there_is_no_quantile() -> None:
    assert ResidualSample().quantiles(0.5) is None


def test_absorbing_joins_two_samples() -> None:
    first, second = ResidualSample(), ResidualSample()
    first.add(torch.tensor([1.0, 2.0]))
    second.add(torch.tensor([3.0]))
    first.absorb(second)
    (median,) = first.quantiles(0.5) or (None,)
    assert median == 2.0


@pytest.mark.parametrize("count", [1, COMPACT_EVERY - 1, COMPACT_EVERY, 3 * COMPACT_EVERY + 5])
def test_is_the_mean_of_what_was_added(count: int) -> None:
    values = torch.rand(count)
    mean = FiniteMean()
    for value in values:
        mean.add(value)
    assert mean.mean().item() == pytest.approx(values.mean().item())


def test_keeps_a_bounded_number_of_tensors() -> None:
    mean = FiniteMean()
    for _ in range(10 * COMPACT_EVERY):
        mean.add(torch.ones(()))
    assert len(mean.pending) < COMPACT_EVERY


def test_leaves_out_what_is_not_finite() -> None:
    mean = FiniteMean()
    for value in (1.0, math.nan, math.inf, 3.0):
        mean.add(value)
    assert mean.mean().item() == 2.0


def test_nothing_finite_gives_nan() -> None:
    mean = FiniteMean()
    assert math.isnan(mean.mean().item())
    mean.add(math.inf)
    assert math.isnan(mean.mean().item())


def test_absorbing_weights_by_count() -> None:
    few, many = FiniteMean(), FiniteMean()
    few.add(10.0)
    for _ in range(3):
        many.add(2.0)
    many.absorb(few)
    assert many.mean().item() == 4.0
