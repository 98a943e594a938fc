"""The synthetic distributions of the papers on range queries under local privacy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import cauchy, laplace, norm

from equipoise.errors import UserError

Distribution = Literal["zipf", "gaussian", "laplace", "cauchy", "bimodal", "uniform"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
ZIPF_EXPONENT = 1.1


def draw(
    name: Distribution,
    users: int,
    domain: tuple[int, ...],
    correlation: float,
    generator: np.random.Generator,
) -> Integers:
    """(users, attributes) values, each attribute of the same distribution over its own domain.

    correlation: of every two of the normal variables of which the attributes are functions (a
    Gaussian copula, so that Gaussian attributes have this correlation themselves).
    Raises UserError for an unknown name, and where no such correlation exists.
    """
    if name not in get_args(Distribution):
        raise UserError(
            f"task.distribution={name} is not one of {', '.join(get_args(Distribution))}"
        )
    least = -1 / (len(domain) - 1) if len(domain) > 1 else -1.0
    if not least <= correlation <= 1:
        raise UserError(
            f"task.correlation={correlation} must lie from {least:.3g} to 1 for {len(domain)} "
            "attributes"
        )
    matrix = np.full((len(domain), len(domain)), correlation)
    np.fill_diagonal(matrix, 1.0)
    normal = generator.multivariate_normal(np.zeros(len(domain)), matrix, users, method="eigh")
    quantiles = norm.cdf(normal)
    columns = [
        np.searchsorted(np.cumsum(cell_probabilities(name, size))[:-1], quantiles[:, a], "right")
        for a, size in enumerate(domain)
    ]
    return np.stack(columns, axis=1)


def cell_probabilities(name: Distribution, size: int) -> Floats:
    """(size,) probability of each cell of equal width over the distribution's range.

    Zipf with exponent 1.1 over 1 to size; N(0, 1) on (-5, 5); Laplace(0, 1) on (-8, 8); Cauchy on
    (-20, 20), what lies outside dropped; half N(0, 0.5^2) and half N(3, 0.8^2) on (-3, 7). Except
    for Cauchy, the end cells hold what lies beyond them.
    """
    if name == "zipf":
        weights = np.arange(1, size + 1) ** -ZIPF_EXPONENT
        return np.asarray(weights / weights.sum())
    if name == "uniform":
        return np.full(size, 1 / size)
    if name == "cauchy":
        inside = np.diff(cauchy.cdf(np.linspace(-20, 20, size + 1)))
        return np.asarray(inside / inside.sum())
    low, high, cumulative = CONTINUOUS[name]
    edges = cumulative(np.linspace(low, high, size + 1))
    edges[0], edges[-1] = 0.0, 1.0
    return np.diff(edges)


def _bimodal(points: Floats) -> Floats:
    return np.asarray((norm.cdf(points, 0, 0.5) + norm.cdf(points, 3, 0.8)) / 2)


CONTINUOUS: dict[str, tuple[float, float, Callable[[Floats], Floats]]] = {
    "gaussian": (-5, 5, norm.cdf),
    "laplace": (-8, 8, laplace.cdf),
    "bimodal": (-3, 7, _bimodal),
}
