"""Where rows come from without a file: scikit-learn's bundled sets, and a sparse generated one."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import brentq
from sklearn import datasets

from equipoise.data.tabular.libsvm import LabelledRows
from equipoise.data.tabular.tables import with_short_indices

Bundled = Literal["breast_cancer", "digits"]

GENERATED = "the generated set"
INFORMATIVE = 0.1
"""The part of the generated columns on which the class depends."""
NOISE = 0.1
"""Standard deviation of the noise on the generated score, in deviations of the score."""


def bundled(name: Bundled) -> LabelledRows:
    """569 breast tumours in 30 measurements, or 1,797 digits in 64 pixels."""
    load = datasets.load_breast_cancer if name == "breast_cancer" else datasets.load_digits
    bunch = load()
    names = tuple(str(label) for label in bunch.target_names)
    return LabelledRows(
        np.asarray(bunch.data, dtype=np.float64), bunch.target.astype(np.float64), names,
        name, lambda row: f"row {row} of {name}",
    )  # fmt: skip


def sparse_problem(
    rows: int = 20_000, columns: int = 50_000, density: float = 1e-3, *, seed: int = 0
) -> LabelledRows:
    """Two classes of equal size in a table of which about `density` is not zero, as in text.

    The k-th column is filled in proportion to 1/k of the rows, as words are in documents, but at
    most in all of them; values are normal. The class is the sign of a noisy score, to which a tenth
    of the columns contribute. No dense array of the table's size is made.
    """
    generator = np.random.default_rng(seed)
    counts = generator.binomial(rows, _shares(columns, density))
    # columns by columns, which needs no search for a place that is taken twice
    places = [generator.choice(rows, count, replace=False, shuffle=False) for count in counts]
    filled = np.concatenate([[0], counts.cumsum()])
    values = generator.standard_normal(filled[-1])
    features = sparse.csc_array((values, np.concatenate(places), filled), shape=(rows, columns))
    weights = generator.standard_normal(columns) * (generator.random(columns) < INFORMATIVE)
    score = features @ weights
    score += NOISE * score.std() * generator.standard_normal(rows)
    labels = np.where(score > np.median(score), 1.0, -1.0)
    return LabelledRows(
        with_short_indices(sparse.csr_array(features)),
        labels,
        None,
        GENERATED,
        lambda row: f"row {row} of {GENERATED}",
    )


def _shares(columns: int, density: float) -> NDArray[np.float64]:
    """In which part of the rows each column is filled, `density` on average."""
    popularity = 1 / np.arange(1, columns + 1)

    def shares(factor: float) -> NDArray[np.float64]:
        return np.minimum(1.0, np.exp(factor) * popularity)

    # with the greatest factor each share is 1, with the least their mean is below any density
    ends = np.log(density) - 1, np.log(columns) + 1
    return shares(brentq(lambda factor: float(shares(factor).mean()) - density, *ends))
