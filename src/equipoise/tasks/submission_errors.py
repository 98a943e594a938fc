"""The errors of many submissions, which may be larger than memory, and sums over them in parts."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Couplings = NDArray[np.int64]
"""Which couplings, or of which kind they are."""

PART = 2**20
"""Errors that are worked on at once: 4 MB, which a core's cache holds."""
RESIDENT = 2**28
"""Bytes of the file that may stay in the memory of the process."""


@dataclass
class SubmissionErrors:
    """What each of M submissions predicts for N couplings minus the truth, in Hz.

    values: (M, N) float32, mapped from a file or in memory. chosen: the M' rows to which this view
    is restricted, all by default. Weights that sum to 1 blend errors as they blend predictions, and
    errors keep in float32 the digits that a prediction of 100 Hz would lose. Rows `rows` are always
    a slice of the N couplings.
    """

    values: Singles
    chosen: NDArray[np.int64] | None = None
    file: mmap.mmap | None = field(default=None, repr=False)

    @classmethod
    def of_file(cls, path: Path, submissions: int) -> SubmissionErrors:
        """Map what `store_errors` wrote."""
        with path.open("rb") as opened:
            file = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(np.frombuffer(file, np.float32).reshape(submissions, -1), file=file)

    def __len__(self) -> int:
        """Return M', the number of submissions."""
        return len(self.values) if self.chosen is None else len(self.chosen)

    def only(self, chosen: Sequence[int] | NDArray[np.int64]) -> SubmissionErrors:
        """The same, of some of these submissions, in the order in which they are named."""
        places = np.asarray(chosen, np.int64)
        return SubmissionErrors(
            self.values, places if self.chosen is None else self.chosen[places], self.file
        )

    def parts(self, rows: slice) -> Iterator[tuple[slice, Singles]]:
        """Pieces of `rows`, from 0, with the errors (M', n) of each."""
        step, read = max(1, PART // len(self)), 0
        for start in range(rows.start, rows.stop, step):
            piece = slice(start, min(start + step, rows.stop))
            errors = self.values[:, piece]
            yield (
                slice(piece.start - rows.start, piece.stop - rows.start),
                errors if self.chosen is None else errors[self.chosen],
            )
            read += errors.nbytes
            if read > RESIDENT:
                read = self._release()

    def gathered(self, couplings: Couplings) -> Iterator[tuple[slice, Singles]]:
        """Pieces of `couplings` (n,), with the errors (M', n') of each: slower than `parts`."""
        step = max(1, PART // len(self))
        for start in range(0, len(couplings), step):
            piece = slice(start, start + step)
            errors = self.values[:, couplings[piece]]
            yield piece, errors if self.chosen is None else errors[self.chosen]
        self._release()

    def _release(self) -> int:
        """Give the pages that were read back to the system, which keeps them as long as it can."""
        if self.file is not None:
            self.file.madvise(mmap.MADV_DONTNEED)
        return 0

    def blended(self, weights: Floats, rows: slice) -> Floats:
        """The errors (n,) of the blend with weights (M',)."""
        result = np.empty(rows.stop - rows.start)
        for piece, errors in self.parts(rows):
            result[piece] = weights @ errors.astype(np.float64)
        return result

    def products(self, factors: Floats, rows: slice) -> Floats:
        """The sum over the couplings of each submission's errors times factors (n,): (M',)."""
        result = np.zeros(len(self))
        for piece, errors in self.parts(rows):
            result += errors.astype(np.float64) @ factors[piece]
        return result

    def gram(self, kept: NDArray[np.bool_], rows: slice) -> Floats:
        """The sums (M', M') of products of two submissions' errors over the couplings `kept`."""
        result = np.zeros((len(self), len(self)))
        for piece, errors in self.parts(rows):
            some = errors[:, kept[piece]].astype(np.float64)
            result += some @ some.T
        return result

    def mae(self, rows: slice) -> Floats:
        """The mean absolute error (M',) of each submission."""
        result = np.zeros(len(self))
        for _, errors in self.parts(rows):
            result += np.abs(errors).sum(axis=1, dtype=np.float64)
        return result / (rows.stop - rows.start)

    def median(self, rows: slice) -> Floats:
        """The errors (n,) of the median of all submissions."""
        result = np.empty(rows.stop - rows.start)
        for piece, errors in self.parts(rows):
            result[piece] = np.median(errors.T, axis=1)
        return result

    def times_median(self, rows: slice) -> NDArray[np.int64]:
        """How often each submission (M',) is the median, or next to it where M' is even."""
        result = np.zeros(len(self), np.int64)
        middle = sorted({(len(self) - 1) // 2, len(self) // 2})
        for _, errors in self.parts(rows):
            order = np.argpartition(errors.T, middle, axis=1)
            result += np.bincount(order[:, middle].ravel(), minlength=len(self))
        return result

    def middle_mean(self, middle: int, rows: slice) -> Floats:
        """The errors (n,) of the mean of the `middle` submissions in the middle of each order."""
        result = np.empty(rows.stop - rows.start)
        first = (len(self) - middle) // 2
        for piece, errors in self.parts(rows):
            result[piece] = np.sort(errors.T, axis=1)[:, first : first + middle].mean(axis=1)
        return result

    def correlation(self, blocks: Sequence[slice]) -> NDArray[Any]:
        """Pearson's correlation (M', M') of the errors, the mean over blocks such as types.

        0 where one does not vary.
        """
        total = np.zeros((len(self), len(self)))
        for rows in blocks:
            count = rows.stop - rows.start
            means = self.products(np.ones(count), rows) / count
            covariance = self.gram(np.ones(count, bool), rows) / count - np.outer(means, means)
            deviation = np.sqrt(covariance.diagonal().clip(0))
            scale = np.outer(deviation, deviation)
            total += np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
        return (total / max(1, len(blocks))).clip(-1, 1)
