"""Statistics over many solves."""

from __future__ import annotations

import torch

from equipoise.callbacks.solve_statistics import Fraction, SolveStatistics
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
