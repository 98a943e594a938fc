"""Tables as tensors, dense or sparse by rows, in batches that are built once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from equipoise.data.sampling import BatchIndex

Table = dict[str, Tensor]
Features: TypeAlias = NDArray[np.float64] | sparse.csr_array


@dataclass(eq=False)
class TableRows:
    """The rows of a split: features (N, F) float64, classes (N,) int64, and row numbers (N,).

    A batch is a table: {"features": float64 (B, F), dense or sparse CSR, "transposed": float64
    (F, B), of the same kind and also stored by rows, "target": int64 (B,), "index": int64 (B,) the
    rows' numbers in the whole set}. Each is built once, so an epoch copies nothing.
    """

    features: Features
    target: NDArray[np.int64]
    index: NDArray[np.int64]
    _made: dict[bytes, Table] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.target)

    def __getitem__(self, index: BatchIndex) -> Table:
        """The table of the rows in `index`."""
        rows = index.rows.numpy()
        key = rows.tobytes()
        if key not in self._made:
            whole = np.array_equal(rows, np.arange(len(self)))
            self._made[key] = (self if whole else self.part(rows)).table()
        return self._made[key]

    def whole(self) -> Table:
        """The table of all rows."""
        return self[BatchIndex(0, torch.arange(len(self)))]

    def part(self, rows: NDArray[np.int64]) -> TableRows:
        """Some rows (B,) of the split, as a split of their own."""
        return TableRows(self.features[rows], self.target[rows], self.index[rows])

    def table(self) -> Table:
        """All rows as tensors, which share the memory of the arrays where they can."""
        return {
            "features": _tensor(self.features),
            "transposed": _tensor(self.features.T),
            "target": torch.from_numpy(self.target),
            "index": torch.from_numpy(self.index),
        }


@dataclass(frozen=True)
class Scaling:
    """The shift and divisor of each column: centre (F,), None for no shift; scale (F,)."""

    centre: NDArray[np.float64] | None
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, features: Features) -> Scaling:
        """The scaling after which each column of these training rows (N, F) has mean square 1.

        Dense columns are centred, sparse ones are not, because zeros would not stay zeros. A
        constant column, or one without a value, has the scale 1.
        """
        if isinstance(features, sparse.csr_array):
            squares = features.power(2).sum(axis=0) / features.shape[0]
            return cls(None, _scale(np.sqrt(squares), squares == 0))
        constant = features.max(axis=0) == features.min(axis=0)
        # the mean of equal numbers may differ from them in the last digit
        centre = np.where(constant, features[0], features.mean(axis=0))
        return cls(centre, _scale(features.std(axis=0), constant))

    def __call__(self, features: Features) -> Features:
        """The features (N, F) after this scaling."""
        if isinstance(features, sparse.csr_array):
            values = features.data / self.scale[features.indices]
            return sparse.csr_array((values, features.indices, features.indptr), features.shape)
        return (features - (0.0 if self.centre is None else self.centre)) / self.scale


def density(features: Features) -> float:
    """The fraction of the entries that are not zero."""
    filled = np.count_nonzero(features) if isinstance(features, np.ndarray) else features.nnz
    return int(filled) / max(features.shape[0] * features.shape[1], 1)


def with_short_indices(features: sparse.csr_array) -> sparse.csr_array:
    """The same values with 32-bit indices, if these suffice: products are faster by half."""
    if max(features.nnz, *features.shape) > np.iinfo(np.int32).max:
        return features
    places = features.indices.astype(np.int32, copy=False)
    return sparse.csr_array(
        (features.data, places, features.indptr.astype(np.int32, copy=False)), features.shape
    )


def _scale(deviation: NDArray[np.float64], constant: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(constant | (deviation == 0), 1.0, deviation)


def _tensor(features: NDArray[np.float64] | sparse.csr_array | sparse.csc_array) -> Tensor:
    if isinstance(features, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(features))
    by_rows = with_short_indices(sparse.csr_array(features))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(by_rows.indptr),
            torch.from_numpy(by_rows.indices),
            torch.from_numpy(by_rows.data),
            by_rows.shape,
            check_invariants=True,
        )
