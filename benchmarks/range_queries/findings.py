"""What the tables are held to, each with its figure and its limit, and where a baseline wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.range_queries.errors import Cell, geometric_mean_ratio
from benchmarks.range_queries.methods import BEATEN
from benchmarks.range_queries.populations import NON_UNIFORM


@dataclass(frozen=True)
class Finding:
    """A figure that must lie between two limits."""

    claim: str
    figure: float
    least: float
    most: float

    @property
    def holds(self) -> bool:
        return self.least <= self.figure <= self.most

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        limit = f"at most {self.most:.3g}"
        if self.least > 0:
            limit = f"from {self.least:.3g} to {self.most:.3g}"
        return f"{verdict}: {self.claim}: {self.figure:.3g} ({limit})"


def of_one_attribute(cells: Sequence[Cell], limit: float) -> list[Finding]:
    """The default mode's gain over the published one, and that one's over its baselines."""
    cells = [cell for cell in cells if cell.label in NON_UNIFORM]
    gain = geometric_mean_ratio(cells, "gls", "paper")
    lost = sum(not cell.beats("paper", base) for cell in cells for base in BEATEN)
    return [
        Finding("gls over paper, geometric mean", gain, 0.0, limit),
        Finding(f"losses of paper in {len(BEATEN) * len(cells)} comparisons", lost, 0, 0),
    ]


def of_the_plane(cells: Sequence[Cell], limit: float = 0.7) -> list[Finding]:
    """The default mode's gain in two attributes, for each population."""
    findings = []
    for name in dict.fromkeys(cell.label for cell in cells):
        own = [cell for cell in cells if cell.label == name]
        gain = geometric_mean_ratio(own, "gls", "paper")
        findings.append(Finding(f"{name}, gls over paper, geometric mean", gain, 0.0, limit))
    return findings


def of_many_attributes(cell: Cell, limit: float = 3e-4) -> list[Finding]:
    """By pairs, and below direct estimation where that was measured."""
    findings = [Finding("pairs gls", cell.mean("pairs gls"), 0.0, limit)]
    if "direct gls" in cell.errors:
        gain = cell.ratio("pairs gls", "direct gls")
        findings.append(Finding("pairs gls over direct gls", gain, 0.0, 1.0))
    return findings


def of_people(cell: Cell) -> list[Finding]:
    """The limits on the attribute that the literature reports."""
    return [
        Finding(f"{cell.label}, gls", cell.mean("gls"), 0.0, 4.0e-4),
        Finding(f"{cell.label}, paper", cell.mean("paper"), 0.75 * 5.5e-4, 1.25 * 5.5e-4),
    ]


def rivals(cells: Sequence[Cell], base: str) -> list[str]:
    """A sentence for each method that has a smaller error than `base` somewhere."""
    sentences = []
    for method in cells[0].errors:
        won = [cell for cell in cells if method != base and cell.ratio(method, base) < 1]
        if won:
            mean = geometric_mean_ratio(cells, method, base)
            best = min(won, key=lambda cell: cell.ratio(method, base))
            sentences.append(
                f"{method} has a smaller error than {base} in {len(won)} of {len(cells)} rows: "
                f"at best {best.ratio(method, base):.2g} of it ({best.label}, ε {best.epsilon:g}), "
                f"{mean:.2f} in the geometric mean over all rows"
            )
    return sentences


def sharpness(cells: Sequence[Cell], method: str) -> float:
    """Median over the rows of the standard error, relative to the error."""
    return float(np.median([cell.standard_error(method) / cell.mean(method) for cell in cells]))
