"""The reproduction tables: errors of AHEAD and its baselines. `-s` prints them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.range_queries.populations import (
    DISTRIBUTIONS,
    NON_UNIFORM,
    Values,
    binned,
    population,
    random_ranges,
    squared_errors,
)
from equipoise.privacy import (
    Ahead,
    AheadPairs,
    DiscreteHaarTransform,
    Flat,
    HierarchicalHistogram,
    HierarchicalIntervals,
    HybridDimensionalGrids,
    Mechanism,
    SmoothedSquareWave,
    Uniform,
)

SIZE = 1024
EPSILONS = (0.1, 0.5, 1.0, 1.5, 2.0)
REPEATS = 10
METHODS: dict[str, Mechanism] = {
    "uniform": Uniform(),
    "flat": Flat(),
    "hio": HierarchicalIntervals(),
    "dht": DiscreteHaarTransform(),
    "hh4": HierarchicalHistogram(),
    "released": Ahead(mode="released"),
    "paper": Ahead(mode="paper"),
    "gls": Ahead(),
    "sw": SmoothedSquareWave(),
}
CORRELATION = np.array([[1.0, 0.8], [0.8, 1.0]])
Cell = dict[str, np.ndarray]


def one_cell(users: int, name: str, epsilon: float) -> Cell:
    """Squared errors of every method on one distribution, printed as a row of the table."""
    generator = np.random.default_rng([users, DISTRIBUTIONS.index(name), int(10 * epsilon)])
    values = population(name, users, SIZE, generator)
    ranges = random_ranges(200, SIZE, 1, generator)
    cell = {}
    for method, mechanism in METHODS.items():
        repeats = 2 if method == "sw" else REPEATS
        cell[method] = squared_errors(
            mechanism, values, (SIZE,), epsilon, ranges, repeats, generator
        )
    numbers = " ".join(f"{errors.mean():9.1e}" for errors in cell.values())
    print(f"{users:8d} {name:9s} {epsilon:4.1f} {numbers}", flush=True)
    return cell


@pytest.mark.slow
@pytest.mark.parametrize(("users", "limit"), [(100_000, 0.75), (1_000_000, 0.65)])
def test_the_table_of_one_attribute(users: int, limit: float) -> None:
    print("\n" + " " * 24 + " ".join(f"{method:>9s}" for method in METHODS))
    table = {
        (name, epsilon): one_cell(users, name, epsilon)
        for name in DISTRIBUTIONS
        for epsilon in EPSILONS
    }
    cells = [table[name, epsilon] for name in NON_UNIFORM for epsilon in EPSILONS]
    ratios = {m: geometric_mean(cells, m) for m in METHODS}
    print("geometric mean over paper:", {m: round(ratio, 2) for m, ratio in ratios.items()})
    assert ratios["gls"] <= limit
    for cell in cells:
        for baseline in ("uniform", "flat", "hio", "dht"):
            assert_not_worse(cell["paper"], cell[baseline])


def geometric_mean(cells: list[Cell], method: str) -> float:
    ratios = [cell[method].mean() / cell["paper"].mean() for cell in cells]
    return float(np.exp(np.log(ratios).mean()))


def assert_not_worse(errors: np.ndarray, baseline: np.ndarray) -> None:
    """Smaller on average, within two standard errors of the difference."""
    doubt = 2 * np.hypot(
        errors.std() / np.sqrt(len(errors)), baseline.std() / np.sqrt(len(baseline))
    )
    assert errors.mean() <= baseline.mean() + doubt


def two_attributes(name: str, users: int, generator: np.random.Generator) -> Values:
    """Correlated Gaussian, or Laplace as a Gaussian with an exponential scale."""
    draws = generator.multivariate_normal(np.zeros(2), CORRELATION, users)
    if name == "gaussian":
        return binned(draws, -5, 5, 256)
    return binned(draws * np.sqrt(generator.exponential(size=(users, 1))), -8, 8, 256)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", "laplace"])
def test_two_attributes(name: str, generator: np.random.Generator) -> None:
    values = two_attributes(name, 1_000_000, generator)
    ranges = random_ranges(200, 256, 2, generator)
    ratios = []
    for epsilon in (0.1, 0.3, 0.5, 0.9, 1.1, 1.5):
        row = {
            label: squared_errors(mechanism, values, (256, 256), epsilon, ranges, 5, generator)
            for label, mechanism in (
                ("paper", Ahead(mode="paper")),
                ("gls", Ahead()),
                ("hdg", HybridDimensionalGrids()),
            )
        }
        ratios.append(row["gls"].mean() / row["paper"].mean())
        means = {label: f"{errors.mean():.1e}" for label, errors in row.items()}
        print(f"\n2-D {name} eps {epsilon}: {means}", flush=True)
    assert np.exp(np.log(ratios).mean()) <= 0.7


@pytest.mark.slow
@pytest.mark.parametrize("attributes", [3, 5])
def test_many_attributes(attributes: int, generator: np.random.Generator) -> None:
    values = binned(generator.laplace(size=(1_000_000, attributes)), -8, 8, 64)
    domain = (64,) * attributes
    ranges = random_ranges(200, 64, attributes, generator)
    pairs = squared_errors(AheadPairs(), values, domain, 1.0, ranges, 5, generator)
    hdg = squared_errors(HybridDimensionalGrids(), values, domain, 1.0, ranges, 3, generator)
    print(f"\n{attributes}-D pairs {pairs.mean():.1e}, hdg {hdg.mean():.1e}", flush=True)
    assert pairs.mean() <= 3e-4
    if attributes == 3:
        direct = squared_errors(Ahead(), values, domain, 1.0, ranges, 5, generator)
        print(f"3-D direct {direct.mean():.1e}")
        assert pairs.mean() < direct.mean()
