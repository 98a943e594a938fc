"""The errors of many submissions, possibly larger than memory, and sums over them in parts."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.commands.ensemble.submissions import couplings_of_a_part

Floats = NDArray[np.float64]
Errors = NDArray[np.floating[Any]]
Couplings = NDArray[np.int64]
"""Indices of couplings, or their kinds."""

RESIDENT = 2**26
"""Bytes of the file that are read before its pages are released."""


@dataclass
class SubmissionErrors:
    """The predictions of M submissions for N couplings minus the truth, in Hz.

    stored: (M N,), in memory or mapped from a file: parts with the errors (M, width) of `width`
    couplings, the last part with the rest. chosen: the M' submissions to which this view is
    restricted, all by default. Weights that sum to 1 blend errors as they blend predictions, and
    in float32 errors keep digits that a prediction of 100 Hz would lose. `rows` is always
    a slice of the N couplings.
    """

    stored: Errors
    submissions: int
    width: int
    file: mmap.mmap | None = field(default=None, repr=False)
    chosen: Couplings | None = None

    @classmethod
    def of_array(cls, errors: Errors) -> SubmissionErrors:
        """Errors (M, N) in memory."""
        return cls(errors.ravel(), *errors.shape)

    @classmethod
    def of_file(cls, path: Path, submissions: int) -> SubmissionErrors:
        """Map the file that `store_errors` wrote."""
        with path.open("rb") as opened:
            file = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        width = couplings_of_a_part(submissions)
        return cls(np.frombuffer(file, np.float32), submissions, width, file)

    def __len__(self) -> int:
        """Return M', the number of submissions."""
        return self.submissions if self.chosen is None else len(self.chosen)

    def only(self, chosen: Sequence[int] | Couplings) -> SubmissionErrors:
        """The same errors for some of these submissions, in the given order."""
        places = np.asarray(chosen, np.int64)
        return replace(self, chosen=places if self.chosen is None else self.chosen[places])

    def parts(self, rows: slice) -> Iterator[tuple[slice, Errors]]:
        """Pieces of `rows`, from 0, with the errors (M', n) of each."""
        start, read = rows.start, 0
        most = couplings_of_a_part(self.submissions)
        while start < rows.stop:
            number, first = divmod(start, self.width)
            stop = min(rows.stop, start + most, (number + 1) * self.width)
            errors = self._part(number)[:, first : first + stop - start]
            yield slice(start - rows.start, stop - rows.start), self._of_chosen(errors)
            start, read = stop, read + errors.nbytes
            if read > RESIDENT:
                read = self._release()
        self._release()

    def gathered(self, couplings: Couplings) -> Iterator[tuple[slice, Errors]]:
        """Pieces of `couplings` (n,), which are in ascending order, with the errors of each."""
        most = couplings_of_a_part(self.submissions)
        numbers = couplings // self.width
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(couplings)]
        for first, last in pairwise(edges):
            part, offset = self._part(int(numbers[first])), int(numbers[first]) * self.width
            for start in range(first, last, most):
                piece = slice(start, min(start + most, last))
                yield piece, self._of_chosen(part[:, couplings[piece] - offset])
        self._release()

    def _part(self, number: int) -> Errors:
        """All errors (M, n) of a part."""
        size = self.submissions * self.width
        part = self.stored[number * size : (number + 1) * size]
        return part.reshape(self.submissions, -1)

    def _of_chosen(self, errors: Errors) -> Errors:
        return errors if self.chosen is None else errors[self.chosen]

    def _release(self) -> int:
        """Release the pages that were read to the system, which caches them as long as it can."""
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
        """The errors (n,) of the mean of the `middle` central submissions for each coupling."""
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
