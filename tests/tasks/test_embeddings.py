"""Rank and spread of known features, and correlations over batches and processes."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, distributed, multiprocessing
from torch.nn import functional

from equipoise.tasks.embeddings import (
    CorrelationMetric,
    collapse_warning,
    effective_rank,
    spread,
)

WIDTH = 5


def rows(count: int, width: int = WIDTH, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


def with_singular_values(values: list[float], count: int) -> Tensor:
    """Centred features (count, h) that have them."""
    centred = rows(count, len(values)) - rows(count, len(values)).mean(dim=0)
    return torch.linalg.qr(centred).Q * torch.tensor(values, dtype=torch.float64) + 3


def joined(
    first: Tensor, second: Tensor, unit_length: bool, unbiased: bool, eps: float = 0.0
) -> Tensor:
    """The cross-correlation of a single batch, as its definition says."""
    views = (first, second)
    if unit_length:
        views = tuple(functional.normalize(view, dim=1) for view in views)
    scaled = [
        (v - v.mean(dim=0)) / (v.var(dim=0, correction=int(unbiased)) + eps).sqrt() for v in views
    ]
    return scaled[0].T @ scaled[1] / len(first)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=8), st.integers(10, 20))
def test_the_rank_is_the_exponential_of_the_entropy(values: list[float], count: int) -> None:
    share = np.array(values) / sum(values)
    expected = np.exp(-(share * np.log(share)).sum())
    assert effective_rank(with_singular_values(values, count)) == pytest.approx(expected, rel=1e-6)


def test_isotropic_features_have_full_rank_and_a_line_has_one() -> None:
    assert effective_rank(with_singular_values([2.0] * 6, 40)) == pytest.approx(6)
    line = rows(40, 1) * rows(1, 6, seed=1) + rows(1, 6, seed=2)
    assert effective_rank(line) == pytest.approx(1, abs=1e-4)
    assert effective_rank(line.float()) == pytest.approx(1, abs=1e-4)
    assert effective_rank(rows(3, 50)) == pytest.approx(2, abs=0.1)  # fewer samples than features


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
def test_what_does_not_vary_has_no_rank_and_no_spread(kind: torch.dtype) -> None:
    for features in (torch.full((9, 4), 0.3, dtype=kind), torch.zeros(9, 4, dtype=kind)):
        assert effective_rank(features) == 0
        assert spread(features) == pytest.approx(0, abs=1e-7)
    assert effective_rank(torch.ones(1, 4, dtype=kind)) == 0


def test_rounding_is_no_direction() -> None:
    noise = 1 + 3e-8 * rows(50, 8)
    assert effective_rank(noise.float()) == 0
    assert effective_rank(noise) > 6


def test_features_that_are_not_finite_have_no_number() -> None:
    features = rows(6)
    features[2, 1] = float("nan")
    assert math.isnan(effective_rank(features))
    assert math.isnan(spread(features))
    assert collapse_warning(effective_rank(features), spread(features), WIDTH) is not None


@pytest.mark.parametrize("width", [8, 64, 512])
def test_gaussian_rows_are_well_spread(width: int) -> None:
    features = rows(2000, width)
    assert spread(features) == pytest.approx(1, abs=0.02)
    assert spread(100 * features) == pytest.approx(spread(features))
    assert spread(features + 1000) < 0.01


def test_a_warning_tells_which_collapse_it_is() -> None:
    def warning(features: Tensor) -> str | None:
        return collapse_warning(effective_rank(features), spread(features), features.shape[1])

    healthy = rows(200, 32)
    assert warning(healthy) is None
    assert warning(healthy.relu()) is None
    assert "hardly differ between samples (spread 0" in str(warning(healthy + 1000))
    line = rows(200, 1) * rows(1, 32, seed=1)
    assert "vary in 1.0 of 32 directions" in str(warning(line))
    assert warning(rows(200, 1)) is None


@given(
    cuts=st.lists(st.integers(0, 40), max_size=5),
    unit_length=st.booleans(),
    unbiased=st.booleans(),
    eps=st.sampled_from([0.0, 1e-2]),
)
def test_uneven_batches_are_as_good_as_one(
    cuts: list[int], unit_length: bool, unbiased: bool, eps: float
) -> None:
    first, second = rows(40) + 2, rows(40, seed=1) * 3
    second = second + first
    metric = CorrelationMetric(WIDTH, unit_length, unbiased=unbiased, eps=eps)
    places = [0, *sorted(cuts), 40]
    for start, end in pairwise(places):
        metric.update(first[start:end], second[start:end])
    expected = joined(first, second, unit_length, unbiased, eps)
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("unbiased", "diagonal"), [(False, 1.0), (True, 6 / 7)])
def test_identical_views_have_the_diagonal_of_the_source(unbiased: bool, diagonal: float) -> None:
    metric = CorrelationMetric(WIDTH, unit_length=True, unbiased=unbiased)
    metric.update(rows(7).float(), rows(7).float())
    torch.testing.assert_close(
        metric.compute().diag(), torch.full((WIDTH,), diagonal, dtype=torch.float64)
    )


@pytest.mark.parametrize("batches", [1, 300])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1234.567])
def test_constant_features_have_zeros(constant: float, batches: int) -> None:
    first, second = rows(30).float(), rows(30, seed=1).float()
    first[:, 2] = constant
    metric = CorrelationMetric(WIDTH, unit_length=False)
    for _ in range(batches):
        metric.update(first, second)
    found = metric.compute()
    assert not found[2].any()
    others = [0, 1, 3, 4]
    expected = joined(first[:, others].double(), second.double(), False, False)
    torch.testing.assert_close(found[others], expected)


def test_one_sample_has_no_correlation_and_a_new_split_starts_anew() -> None:
    metric = CorrelationMetric(WIDTH, unit_length=False)
    metric.update(rows(1), rows(1, seed=1))
    assert not metric.compute().any()
    metric.reset()
    metric.update(rows(9), rows(9))
    torch.testing.assert_close(metric.compute(), joined(rows(9), rows(9), False, False))


def test_wide_features_are_summed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.tasks.embeddings.FEATURES_IN_DOUBLE", WIDTH - 1)
    metric = CorrelationMetric(WIDTH, unit_length=False)
    metric.update(rows(50), rows(50, seed=1))
    assert metric.products.dtype == torch.float32
    expected = joined(rows(50), rows(50, seed=1), False, False).float()
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-5, atol=1e-6)


def work(rank: int, folder: str) -> None:
    """One of two processes, with 6 and 11 of the samples."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    metric = CorrelationMetric(WIDTH, unit_length=True)
    mine = slice(0, 6) if rank == 0 else slice(6, 17)
    metric.update(rows(17)[mine], rows(17, seed=1)[mine])
    torch.save(metric.compute(), f"{folder}/{rank}.pt")
    distributed.barrier()  # a process that leaves first would cut the other's connection
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_as_good_as_one(tmp_path: Path) -> None:
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    expected = joined(rows(17), rows(17, seed=1), unit_length=True, unbiased=False)
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected)
