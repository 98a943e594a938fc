"""Norm-Sub: the nearest frequencies that are not negative and have a given sum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def norm_sub(frequencies: Floats, total: float = 1.0) -> Floats:
    """max(f - d, 0) with the d for which the sum is `total` (not negative).

    Source: Wang et al. 2020 (NDSS), "Norm-Sub": the Euclidean projection on the simplex.
    """
    return norm_sub_families(frequencies, np.zeros(1, dtype=np.int64), np.array([total]))


def norm_sub_families(frequencies: Floats, starts: Integers, totals: Floats) -> Floats:
    """Norm-Sub of each family, the entries from starts[i] to below starts[i + 1].

    An entry that has become zero stays so; each pass settles at least one entry of a family that is
    not settled yet, so there are at most as many passes as the largest family has members.
    """
    sizes = np.diff(np.append(starts, len(frequencies)))
    kept = np.ones(len(frequencies), dtype=bool)
    while True:
        members = np.maximum(np.add.reduceat(kept.astype(np.int64), starts), 1)
        sums = np.add.reduceat(np.where(kept, frequencies, 0.0), starts)
        shifted = np.where(kept, frequencies - np.repeat((sums - totals) / members, sizes), 0.0)
        negative = shifted < 0
        if not negative.any():
            return shifted
        kept &= ~negative


def norm_sub_once(frequencies: Floats, total: float = 1.0) -> Floats:
    """One pass, as the released AHEAD code does: clip, then shift what is positive.

    The result sums to `total` but may hold negative entries again.
    """
    clipped = np.maximum(frequencies, 0.0)
    positive = clipped > 0
    if not positive.any():
        return np.full_like(clipped, total / len(clipped))
    return clipped - positive * (clipped.sum() - total) / positive.sum()
