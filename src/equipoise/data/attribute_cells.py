"""From a column's numbers to the cells 0, 1, ... of its domain. Nothing is ever clipped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.data.population import Integers, Limits
from equipoise.errors import UserError

DEFAULT_CELLS = 1024


def cells_of(
    numbers: NDArray, name: str, size: int | None, limits: Limits | None
) -> tuple[Integers, int, Limits | None]:
    """The cells (people,), their number, and the limits where the column was binned.

    Integers are their own cells; size None: one more than the greatest. A column with limits, or
    most of whose numbers have a fraction, is binned into `size` (None: 1024) cells of equal width.
    Raises UserError for single numbers with a fraction among integers, and for negative or too
    large values.
    """
    fractional = numbers != np.floor(numbers)
    if limits is None and not fractional.any():
        return _integers(numbers.astype(np.int64), name, size)
    if limits is None and fractional.mean() < 0.5:
        raise UserError(
            f"Column '{name}' has {int(fractional.sum())} value(s) that are no integers, the first "
            f"is {numbers[fractional][0]:g}: round them, or give task.limits=[[low,high]] to have "
            "the column binned"
        )
    return _binned(numbers.astype(np.float64), name, size or DEFAULT_CELLS, limits)


def _integers(values: Integers, name: str, size: int | None) -> tuple[Integers, int, Limits | None]:
    if values.min() < 0:
        raise UserError(
            f"Column '{name}' has {int((values < 0).sum())} negative value(s), the least is "
            f"{values.min()}: count from 0, or give task.limits=[[low,high]] to have the column "
            "binned"
        )
    size = int(values.max()) + 1 if size is None else size
    if size < 2:
        raise UserError(
            f"Column '{name}' holds nothing but 0, and an attribute needs 2 or more values: set "
            "task.domain to the number of values that it could have"
        )
    outside = values[values >= size]
    if len(outside):
        raise UserError(
            f"Column '{name}' has {len(outside)} value(s) outside the domain 0 to {size - 1}, the "
            f"greatest is {values.max()}: set task.domain to {values.max() + 1} or more, or drop "
            "such rows"
        )
    return values, size, None


def _binned(
    numbers: NDArray[np.float64], name: str, size: int, limits: Limits | None
) -> tuple[Integers, int, Limits | None]:
    """Cells of equal width; the upper limit itself belongs to the last cell."""
    low, high = limits or [float(numbers.min()), float(numbers.max())]
    if not low < high:
        raise UserError(f"The limits of column '{name}' must rise, got {low:g} and {high:g}")
    outside = numbers[(numbers < low) | (numbers > high)]
    if len(outside):
        raise UserError(
            f"Column '{name}' has {len(outside)} value(s) outside its limits {low:g} to {high:g}, "
            f"the first is {outside[0]:g}: widen task.limits, or drop such rows"
        )
    cells = np.floor((numbers - low) / (high - low) * size).astype(np.int64)
    return np.minimum(cells, size - 1), size, [low, high]
