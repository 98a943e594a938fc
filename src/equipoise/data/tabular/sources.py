"""Where rows come from: scikit-learn's bundled sets, a sparse generated one, and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import brentq
from sklearn import datasets

from equipoise.data.module import SplitName
from equipoise.data.tabular.libsvm import LabelledRows, read_libsvm
from equipoise.data.tabular.tables import with_short_indices
from equipoise.errors import UserError

Bundled = Literal["breast_cancer", "digits"]

GENERATED = "the generated set"
INFORMATIVE = 0.1
"""The fraction of the generated columns on which the class depends."""
NOISE = 0.1
"""Standard deviation of the noise on the generated score, relative to that of the score."""


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
    """Two classes of equal size in a table with about a fraction `density` of nonzero entries.

    As with words in documents, the k-th column is filled in a number of rows proportional to 1/k,
    but at most in all of them; values are normal. The class is the sign of a noisy score, to which
    a tenth of the columns contribute. No dense array of the table's size is created.
    """
    generator = np.random.default_rng(seed)
    counts = generator.binomial(rows, _shares(columns, density))
    # column by column, so that no place is taken twice and none need be searched
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
    """The fraction of the rows in which each column is filled, `density` on average."""
    popularity = 1 / np.arange(1, columns + 1)

    def shares(factor: float) -> NDArray[np.float64]:
        return np.minimum(1.0, np.exp(factor) * popularity)

    # with the greatest factor each share is 1, with the least their mean is below any density
    ends = np.log(density) - 1, np.log(columns) + 1
    return shares(brentq(lambda factor: float(shares(factor).mean()) - density, *ends))


@lru_cache(maxsize=1)
def read_sources(
    files: tuple[tuple[SplitName, str, tuple[int, int]], ...],
) -> Mapping[SplitName, LabelledRows]:
    """The rows of the files, each given as split, path and a value that changes with the file.

    The latest ones are kept, because a run reads them twice: before it begins and when it loads
    them. Raises UserError as `read_libsvm` does.
    """
    parts = read_libsvm([path for _, path, _ in files])
    return {name: part for (name, _, _), part in zip(files, parts, strict=True)}


def new_rows(
    path: str, beside: str | None, width: int, names: Sequence[str]
) -> tuple[sparse.csr_array, NDArray[np.int64]]:
    """The rows (N, width) of a file in libsvm's format, and their classes, -1 for none.

    beside: the file of the training rows, whose columns are counted from 0 or 1 in the same way as
    those of the new file. names: of the classes, as written in the labels. Raises UserError as
    `read_libsvm` does, and if the file has more columns.
    """
    rows = read_libsvm([path] if beside is None else [beside, path])[-1]
    features = sparse.csr_array(rows.features)
    if (columns := features.shape[1]) > width:
        raise UserError(
            f"{path} has {columns} columns, and the model was trained on {width}: give rows of the "
            "same columns"
        )
    features.resize((len(rows.labels), width))
    number_of = {name: number for number, name in enumerate(names)}
    classes = [number_of.get(f"{label:.12g}", -1) for label in rows.labels]
    return features, np.array(classes, np.int64)
