"""The bounded sample of residuals."""

from __future__ import annotations

import math

import pytest
import torch

from equipoise.callbacks.residual_sample import ResidualSample


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
