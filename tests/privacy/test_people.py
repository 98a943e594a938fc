"""AHEAD on a real table: three integer attributes of 32,561 people.

Runs where the environment variable EQUIPOISE_DATA names a folder that holds adult/adult.parquet.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas
import pytest

from benchmarks.range_queries.populations import Values, squared_errors
from equipoise.privacy import Ahead, HierarchicalHistogram, Mechanism, SmoothedSquareWave

SIZE = 1024
REPEATS = 60


def first_attribute() -> Values:
    folder = os.environ.get("EQUIPOISE_DATA")
    if folder is None:
        pytest.skip("EQUIPOISE_DATA does not name the folder of the real data")
    return pandas.read_parquet(Path(folder) / "adult/adult.parquet")["attribute_0"].to_numpy()


def half_ranges(generator: np.random.Generator) -> Values:
    """200 ranges over half of the domain."""
    low = generator.integers(0, SIZE // 2 + 1, 200)
    return np.stack((low, low + SIZE // 2), axis=1)[:, None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "least", "most", "repeats"),
    [
        (Ahead(), 0.0, 4.0e-4, REPEATS),
        (Ahead(mode="paper"), 5.5e-4 * 0.75, 5.5e-4 * 1.25, 2 * REPEATS),
        (Ahead(mode="released"), 0.0, 1.0e-3, REPEATS),
        (HierarchicalHistogram(), 0.0, 1.0e-3, REPEATS),
        (SmoothedSquareWave(), 0.0, 4.0e-4, 5),
    ],
    ids=["gls", "paper", "released", "hh4", "sw"],
)
def test_ranges_over_half_of_the_domain(
    mechanism: Mechanism, least: float, most: float, repeats: int, generator: np.random.Generator
) -> None:
    values, ranges = first_attribute(), half_ranges(generator)
    errors = squared_errors(mechanism, values, (SIZE,), 1.0, ranges, repeats, generator)
    print(f"\n{errors.mean():.2e} +- {errors.std() / np.sqrt(repeats):.1e}", flush=True)
    assert least <= errors.mean() <= most
