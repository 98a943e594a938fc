"""Range queries as people write them: age in [30, 40) and hours in [0, 20]."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from equipoise.errors import UserError, nearest

CONDITION = re.compile(
    r"\s*(.+?)\s+in\s*([\[(])\s*([^,\[\]()]+?)\s*,\s*([^,\[\]()]+?)\s*([\])])\s*"
)
LARGEST = 2**53
FORM = "a condition looks like {} in [10, 200)"


@dataclass(frozen=True)
class Attribute:
    """A column of a survey: its name, its number of cells, and, where it was binned, its limits."""

    name: str
    size: int
    limits: Sequence[float] | None = None

    @property
    def width(self) -> float:
        """Of a cell, in the column's own unit."""
        return 1.0 if self.limits is None else (self.limits[1] - self.limits[0]) / self.size

    @property
    def origin(self) -> float:
        """Where the first cell begins."""
        return 0.0 if self.limits is None else self.limits[0]


def read_ranges(text: str, attributes: Sequence[Attribute]) -> list[tuple[int, int]]:
    """A half-open range of cells for each attribute; the whole domain where none is named.

    [a, b) holds a but not b, and so on. Ends in a binned column are taken to the nearest edge of a
    cell. Raises UserError where the text cannot be read, or a range leaves the domain.
    """
    ranges = {attribute.name: (0, attribute.size) for attribute in attributes}
    named: list[str] = []
    for part in re.split(r"\s+and\s+", text.strip(), flags=re.IGNORECASE):
        found = CONDITION.fullmatch(part)
        if found is None:
            raise UserError(f"cannot read '{part}': {FORM.format(attributes[0].name)}")
        name = found[1]
        if name not in ranges:
            known = ", ".join(ranges)
            raise UserError(
                f"the survey has no attribute '{name}'{nearest(name, ranges) or ';'} it has {known}"
            )
        if name in named:
            raise UserError(f"'{name}' has two conditions: give one range for each attribute")
        named.append(name)
        attribute = next(a for a in attributes if a.name == name)
        ranges[name] = _cells(attribute, found[2], found[3], found[4], found[5])
    return list(ranges.values())


def written(ranges: Sequence[tuple[int, int]], attributes: Sequence[Attribute]) -> str:
    """The ranges as they were understood, without those that are the whole domain."""
    parts = [
        f"{a.name} in [{a.origin + low * a.width:.6g}, {a.origin + high * a.width:.6g})"
        for (low, high), a in zip(ranges, attributes, strict=True)
        if (low, high) != (0, a.size)
    ]
    return " and ".join(parts) or "everybody"


def _cells(
    attribute: Attribute, opening: str, first: str, second: str, closing: str
) -> tuple[int, int]:
    low, high = (_edge(attribute, end) for end in (first, second))
    if attribute.limits is None:  # between integers it matters whether an end is meant itself
        low += opening == "("
        high += closing == "]"
    if not 0 <= low < high <= attribute.size:
        least, most = attribute.origin, attribute.origin + attribute.size * attribute.width
        raise UserError(
            f"{attribute.name} in {opening}{first}, {second}{closing} must hold something and lie "
            f"within [{least:g}, {most:g})"
        )
    return low, high


def _edge(attribute: Attribute, text: str) -> int:
    """The cell that begins at a number; of a binned column the nearest."""
    try:
        number = float(text)
    except ValueError as error:
        raise UserError(f"'{text}' is no number; {FORM.format(attribute.name)}") from error
    position = (number - attribute.origin) / attribute.width
    if not abs(position) < LARGEST:
        raise UserError(f"'{text}' lies outside the domain of {attribute.name}")
    if attribute.limits is None and position != int(position):
        raise UserError(f"{attribute.name} counts in integers, and {text} is none")
    return round(position)
