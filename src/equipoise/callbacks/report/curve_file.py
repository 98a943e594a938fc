"""Reading the curve of a run back from metrics.csv."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

Points = tuple[tuple[float, float], ...]
"""(step, value) pairs in the order of the steps."""


@dataclass(frozen=True)
class Span:
    """Steps during which one gradient estimator was in force."""

    name: str
    first: float
    last: float


class CurveFile:
    """The columns of a metrics.csv; a file that does not exist has none."""

    def __init__(self, path: Path | None) -> None:
        self.rows: list[dict[str, str]] = []
        if path is not None and path.is_file():
            with path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))

    def columns(self) -> list[str]:
        """Return the names of the columns."""
        return list(self.rows[0]) if self.rows else []

    def points(self, column: str) -> Points:
        """Return the finite values of a column with their steps."""
        filled = [(row["step"], row[column]) for row in self.rows if row.get(column)]
        pairs = [(float(step), float(value)) for step, value in filled]
        return tuple(sorted(pair for pair in pairs if math.isfinite(pair[1])))

    def gradient_spans(self) -> tuple[Span, ...]:
        """Return the phases of the gradient estimator; none where it never changed."""
        named = [(float(row["step"]), row["gradient"]) for row in self.rows if row.get("gradient")]
        spans, start = [], 0.0
        for name, group in groupby(named, key=lambda pair: pair[1]):
            last = list(group)[-1][0]
            spans.append(Span(name, start, last))
            start = last
        return tuple(spans) if len(spans) > 1 else ()
