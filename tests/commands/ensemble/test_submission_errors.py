"""Sums over errors in parts, against numpy on the whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ensemble import PEAK
from equipoise.commands.ensemble import submissions
from equipoise.commands.ensemble.submission_errors import SubmissionErrors

ROWS = slice(3, 50)
VALUES = np.random.default_rng(0).standard_normal((6, 61)).astype(np.float32)

MEASURED = (
    PEAK
    + """
from equipoise.commands.ensemble.submission_errors import SubmissionErrors

errors = SubmissionErrors.of_file(Path(sys.argv[1]), 300)
before = peak()
assert errors.mae(slice(0, 1_000_000)).max() == 0
print(peak() - before)
"""
)


@pytest.fixture(params=[(40, 61), (40, 7), (2**20, 61), (2**20, 20)])
def stored(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SubmissionErrors:
    """The same errors, in parts of different widths, worked on in pieces of different sizes."""
    size, width = request.param
    monkeypatch.setattr(submissions, "PART", size)
    parts = [VALUES[:, start : start + width].ravel() for start in range(0, 61, width)]
    return SubmissionErrors(np.concatenate(parts), 6, width)


@pytest.mark.parametrize("chosen", [range(6), [4, 0, 5]], ids=["all", "some"])
def test_sums_in_parts_are_those_of_the_whole(stored: SubmissionErrors, chosen: list[int]) -> None:
    errors = stored.only(chosen)
    whole = VALUES.astype(np.float64)[chosen, ROWS]
    weights, factors = np.linspace(0, 1, len(whole)), np.linspace(-1, 1, 47)
    kept = np.arange(47) % 3 == 0
    assert len(errors) == len(whole)
    assert errors.blended(weights, ROWS) == pytest.approx(weights @ whole)
    assert errors.products(factors, ROWS) == pytest.approx(whole @ factors)
    assert errors.gram(kept, ROWS) == pytest.approx(whole[:, kept] @ whole[:, kept].T)
    assert errors.mae(ROWS) == pytest.approx(np.abs(whole).mean(axis=1))
    assert errors.median(ROWS) == pytest.approx(np.median(whole, axis=0), abs=1e-6)
    ordered = np.sort(whole, axis=0)
    middle = 2 - len(whole) % 2
    inner = ordered[(len(whole) - middle) // 2 :][:middle]
    assert errors.middle_mean(middle, ROWS) == pytest.approx(inner.mean(axis=0), abs=1e-6)


def test_couplings_are_gathered_in_their_order(stored: SubmissionErrors) -> None:
    wanted = np.array([0, 6, 7, 20, 21, 21, 40, 41, 59, 60])
    pieces = list(stored.only([4, 0, 5]).gathered(wanted))
    assert [place for piece, _ in pieces for place in range(10)[piece]] == list(range(10))
    found = np.concatenate([values for _, values in pieces], axis=1)
    assert (found == VALUES[[4, 0, 5]][:, wanted]).all()


def test_a_view_of_a_view_and_a_single_submission() -> None:
    errors = SubmissionErrors.of_array(VALUES).only([4, 0, 5]).only([2, 0])
    assert errors.blended(np.array([1.0, 0.0]), ROWS) == pytest.approx(VALUES[5, ROWS])
    assert SubmissionErrors.of_array(VALUES).only([3]).median(ROWS) == pytest.approx(
        VALUES[3, ROWS]
    )


@pytest.mark.parametrize("count", [5, 6])
def test_how_often_a_submission_is_the_median(stored: SubmissionErrors, count: int) -> None:
    errors = stored.only(range(count))
    ordered = np.argsort(VALUES[:count, ROWS], axis=0)
    middle = ordered[2:3] if count == 5 else ordered[2:4]
    expected = np.bincount(middle.ravel(), minlength=count)
    assert errors.times_median(ROWS).tolist() == expected.tolist()


def test_correlation_is_the_mean_over_types_and_0_where_nothing_varies() -> None:
    blocks = [slice(0, 20), slice(20, 61)]
    values = VALUES.copy()
    values[3] = 0.5
    others = [0, 1, 2, 4, 5]
    expected = np.mean([np.corrcoef(values[others, rows]) for rows in blocks], axis=0)
    found = SubmissionErrors.of_array(values).correlation(blocks)
    assert found[np.ix_(others, others)] == pytest.approx(expected, abs=1e-5)
    assert found[3] == pytest.approx(0, abs=1e-5)


def test_a_file_larger_than_what_may_stay_in_memory(tmp_path: Path) -> None:
    """1.2 GB of zeros, which take no space on the disk, and would take that of memory."""
    file = tmp_path / "errors"
    with file.open("wb") as target:
        target.truncate(4 * 300 * 1_000_000)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(file)], check=True, capture_output=True, text=True
    )
    assert float(done.stdout) < 200
