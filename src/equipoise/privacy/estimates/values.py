"""People's values and range queries as arrays, checked once on entry."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.privacy.client.errors import PrivacyError
from equipoise.privacy.client.round import Domain
from equipoise.privacy.oracles.randomizer import Integers

LARGEST = 2**63 - 1


def check_values(values: ArrayLike, domain: Domain) -> Integers:
    """Values (n,) or (n, attributes) as int64 (n, attributes).

    Raises PrivacyError for missing, non-integer, negative or too large values: nothing is clipped,
    because a silently moved value gives a wrong answer.
    """
    table = _array(values)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or table.shape[1] != len(domain):
        raise PrivacyError(
            f"The values must have {len(domain)} attribute(s), got the shape {table.shape}."
        )
    whole = _whole_numbers(table)
    for attribute, size in enumerate(domain):
        _check_bounds(whole[:, attribute], attribute, size)
    return whole


def check_ranges(ranges: ArrayLike, domain: Domain) -> Integers:
    """Queries (n, attributes, 2) of half-open [low, high), or (n, 2) for one attribute, as int64.

    Raises PrivacyError where a range extends beyond the domain or ends before it starts.
    """
    boxes = _array(ranges)
    boxes = boxes[:, None, :] if boxes.ndim == 2 else boxes
    if boxes.ndim != 3 or boxes.shape[1:] != (len(domain), 2):
        raise PrivacyError(
            f"A query needs [low, high) for {len(domain)} attribute(s), got shape {boxes.shape}."
        )
    boxes = _whole_numbers(boxes)
    low, high = boxes[..., 0], boxes[..., 1]
    if (low < 0).any() or (high > np.array(domain)).any() or (low > high).any():
        raise PrivacyError(f"Each range must satisfy 0 <= low <= high <= {list(domain)}.")
    return boxes


def check_histogram(histogram: ArrayLike, domain: Domain) -> Integers:
    """Numbers of people at every value, as int64 of the shape `domain`; raises PrivacyError."""
    people = _array(histogram)
    if people.shape != tuple(domain):
        raise PrivacyError(f"The histogram must have the shape {domain}, got {people.shape}.")
    whole = _whole_numbers(people)
    if whole.min() < 0 or whole.sum() < 1:
        raise PrivacyError("A histogram counts people: no negative number, and at least one.")
    return whole


def _array(values: ArrayLike) -> NDArray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise PrivacyError("The values must be rows of one length.") from error


def _whole_numbers(table: NDArray) -> Integers:
    if table.dtype.kind in "iu" and (not table.size or int(table.max()) <= LARGEST):
        return table.astype(np.int64)
    try:
        numbers = table.astype(np.float64, casting="unsafe" if table.dtype.kind in "OU" else "safe")
    except (TypeError, ValueError) as error:
        raise PrivacyError("The values must be integers; at least one is not a number.") from error
    if not np.isfinite(numbers).all():
        raise PrivacyError(
            "At least one value is missing or infinite; drop such people or give them a value."
        )
    if (np.abs(numbers) >= LARGEST).any():
        raise PrivacyError(
            "At least one value is too large to be counted; bin numeric columns first."
        )
    if (numbers != np.floor(numbers)).any():
        raise PrivacyError("At least one value is not an integer; bin numeric columns first.")
    return numbers.astype(np.int64)


def _check_bounds(column: Integers, attribute: int, size: int) -> None:
    outside = np.flatnonzero((column < 0) | (column >= size))
    if len(outside):
        raise PrivacyError(
            f"{len(outside)} value(s) of attribute {attribute} lie outside 0 to {size - 1}, the "
            f"first is {column[outside[0]]}; enlarge the domain or drop them."
        )
