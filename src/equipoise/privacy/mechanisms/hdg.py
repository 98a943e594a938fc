"""HDG: hybrid-dimensional grids."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.client.round import Domain, check_domain
from equipoise.privacy.estimates.distributions import fit_matrix, norm_sub
from equipoise.privacy.estimates.range_estimate import (
    PairEstimate,
    RangeEstimate,
    check_has_pairs,
    pairs_of,
)
from equipoise.privacy.estimates.tree import levels_of
from equipoise.privacy.mechanisms.survey import Question, Survey, Tally, equal_shares
from equipoise.privacy.oracles import OracleChoice, frequency_oracle
from equipoise.privacy.oracles.randomizer import Floats, Integers

_FITTING_PASSES = 100


@dataclass
class Grid:
    """Frequencies of equal cells; widths: cell width along each of `attributes`, powers of 2."""

    attributes: tuple[int, ...]
    widths: tuple[int, ...]
    frequencies: Floats

    def normalise(self) -> None:
        """Norm-Sub over all cells."""
        self.frequencies = norm_sub(self.frequencies.ravel()).reshape(self.frequencies.shape)

    def marginal(self, attribute: int, width: int, cells: int) -> tuple[Floats, float]:
        """Sums over bins of `width` along the attribute, and the number of cells in a bin."""
        axis = self.attributes.index(attribute)
        line = self.frequencies.sum(axis=tuple(a for a in range(len(self.attributes)) if a != axis))
        merged = width // self.widths[axis]
        starts = np.arange(0, len(line), merged)
        assert len(starts) == cells
        return np.add.reduceat(line, starts), merged * self.frequencies.size / len(line)

    def shift(self, attribute: int, width: int, difference: Floats) -> None:
        """Spread a difference for each bin evenly over the bin's cells."""
        axis = self.attributes.index(attribute)
        bins = np.arange(self.frequencies.shape[axis]) * self.widths[axis] // width
        size = np.bincount(bins) * self.frequencies.size / self.frequencies.shape[axis]
        shape = [1] * self.frequencies.ndim
        shape[axis] = -1
        self.frequencies = self.frequencies + (difference / size)[bins].reshape(shape)


def reconcile(grids: list[Grid], domain: Domain, passes: int = 3) -> None:
    """Alternate between agreement on each attribute and removal of negative cells.

    In each bin of the coarsest grid, the grids' sums are averaged with weights inverse to the
    number of cells summed. Source: Yang et al. 2021 (HDG), section 4.2.
    """
    for _ in range(passes):
        for grid in grids:
            grid.normalise()
        for attribute, size in enumerate(domain):
            _agree([grid for grid in grids if attribute in grid.attributes], attribute, size)
    for grid in grids:
        grid.normalise()


def _agree(grids: list[Grid], attribute: int, size: int) -> None:
    width = max(grid.widths[grid.attributes.index(attribute)] for grid in grids)
    cells = -(-size // width)
    parts = [grid.marginal(attribute, width, cells) for grid in grids]
    weights = np.array([1 / summed for _, summed in parts])
    sums = np.stack([sums for sums, _ in parts])
    mean = weights @ sums / weights.sum()
    for grid, marginal in zip(grids, sums, strict=True):
        grid.shift(attribute, width, mean - marginal)


def cell_width(size: int, cells: float) -> int:
    """Width, a power of 2, for about `cells` (at least 2) bins over the padded attribute."""
    padded = 1 << levels_of(size, 2)
    exponent = round(math.log2(max(cells, 2.0)))
    return max(1, padded >> exponent)


def box_edges(domain: Domain, widths: tuple[int, ...]) -> tuple[Integers, Integers]:
    """low and high (cells, attributes) of a grid's boxes in row-major order, clipped."""
    shape = tuple(-(-size // width) for size, width in zip(domain, widths, strict=True))
    index = np.stack(np.unravel_index(np.arange(math.prod(shape)), shape), axis=1)
    low = index * np.array(widths)
    return low, np.minimum(low + np.array(widths), np.array(domain))


@dataclass(frozen=True, kw_only=True)
class HybridDimensionalGrids:
    """A fine grid for each attribute, a coarse one for each pair, joined by maximum entropy.

    alpha1, alpha2: the constants of the guideline for the grids' sizes. oracle: OUE has the
    variance of the paper's OLH. Source: Yang et al. 2021 (PVLDB 14), arXiv 2009.06538.
    """

    name: ClassVar[str] = "hdg"

    alpha1: float = 0.7
    alpha2: float = 0.03
    oracle: OracleChoice = "auto"

    def survey(self, domain: int | Sequence[int], epsilon: float, users: int) -> GridSurvey:
        """One round a grid, in any order."""
        sizes = check_domain(domain)
        check_has_pairs(sizes, self.name)
        return GridSurvey(sizes, epsilon, users, self)

    def grid_sizes(self, epsilon: float, users: float) -> tuple[float, float]:
        """Cells along an attribute of the fine and of the coarse grids.

        g1 = (n (e^eps - 1)^2 alpha1^2 / (2 e^eps))^(1/3),
        g2 = (2 alpha2 (e^eps - 1) (n / e^eps)^(1/2))^(1/2).
        users: n, those of one grid. Source: Yang et al. 2021, section 4.6.
        """
        gain, factor = math.expm1(epsilon), math.exp(epsilon)
        fine = (users * gain**2 * self.alpha1**2 / (2 * factor)) ** (1 / 3)
        coarse = math.sqrt(2 * self.alpha2 * gain * math.sqrt(users / factor))
        return fine, min(coarse, fine)


class GridSurvey(Survey):
    """Rounds 0 to m - 1 ask for single attributes, the later ones for pairs."""

    def __init__(
        self, domain: Domain, epsilon: float, users: int, settings: HybridDimensionalGrids
    ) -> None:
        self.members = [(a,) for a in range(len(domain))] + list(pairs_of(domain))
        super().__init__(settings, domain, epsilon, users, equal_shares(len(self.members)))
        self.oracle = settings.oracle
        fine, coarse = settings.grid_sizes(self.epsilon, users / self.rounds)
        self.widths = [
            tuple(
                cell_width(domain[a], fine if len(attributes) == 1 else coarse) for a in attributes
            )
            for attributes in self.members
        ]

    def estimate_from(self, tallies: Mapping[int, Tally]) -> PairEstimate:
        """Reconciled grids; for each pair a matrix that agrees with all three of its grids."""
        grids = [self._grid(index, tallies[index]) for index in range(self.rounds)]
        reconcile(grids, self.domain)
        lines = grids[: len(self.domain)]
        pairs: list[RangeEstimate] = [
            _pair_estimate(lines[a], lines[b], grid, (self.domain[a], self.domain[b]))
            for (a, b), grid in zip(pairs_of(self.domain), grids[len(lines) :], strict=True)
        ]
        return PairEstimate(self.domain, pairs)

    def _question(self, index: int) -> Question:
        attributes = self.members[index]
        low, high = box_edges(tuple(self.domain[a] for a in attributes), self.widths[index])
        return Question(
            attributes, low, high, frequency_oracle(self.oracle, len(low), self.epsilon)
        )

    def _grid(self, index: int, tally: Tally) -> Grid:
        attributes, widths = self.members[index], self.widths[index]
        shape = [-(-self.domain[a] // width) for a, width in zip(attributes, widths, strict=True)]
        oracle = frequency_oracle(self.oracle, math.prod(shape), self.epsilon)
        frequencies = oracle.estimate(tally.counts, tally.reports).reshape(shape)
        return Grid(attributes, widths, frequencies)


@dataclass
class MatrixEstimate(RangeEstimate):
    """Two attributes: frequencies of cells of the given widths, uniform inside a cell."""

    domain: Domain
    widths: tuple[int, int]
    matrix: Floats

    def fractions(self, boxes: NDArray[np.int64]) -> Floats:
        """Covered rows times matrix times covered columns."""
        rows, columns = (
            covered_parts(boxes[:, axis], self.domain[axis], self.widths[axis]) for axis in (0, 1)
        )
        return np.einsum("qi,ij,qj->q", rows, self.matrix, columns, optimize=True)

    def deviations(self, boxes: NDArray[np.int64]) -> None:
        """None: assumed uniformity in cells and the fitting make errors of unknown size."""


def covered_parts(ranges: NDArray[np.int64], size: int, width: int) -> Floats:
    """(n, cells) the fraction of each cell that the ranges (n, 2) cover."""
    low = np.arange(0, size, width)
    high = np.minimum(low + width, size)
    inside = np.minimum(ranges[:, 1:], high) - np.maximum(ranges[:, :1], low)
    return np.maximum(inside, 0) / (high - low)


def _pair_estimate(first: Grid, second: Grid, both: Grid, domain: Domain) -> MatrixEstimate:
    """At the resolution of the two fine grids, where the coarse cells are blocks."""
    widths = (first.widths[0], second.widths[0])
    volumes = [
        np.minimum(w, s - np.arange(0, s, w)) / s for s, w in zip(domain, widths, strict=True)
    ]
    rows = _blocks(len(volumes[0]), both.widths[0] // widths[0])
    columns = _blocks(len(volumes[1]), both.widths[1] // widths[1])
    every_row, every_column = (np.eye(len(volume)) for volume in volumes)
    constraints = [
        (every_row, np.ones((len(volumes[1]), 1)), first.frequencies[:, None]),
        (np.ones((1, len(volumes[0]))), every_column, second.frequencies[None]),
        (rows, columns.T, both.frequencies),
    ]
    initial = np.outer(*volumes)
    return MatrixEstimate(domain, widths, fit_matrix(initial, constraints, _FITTING_PASSES, 1e-6))


def _blocks(cells: int, merged: int) -> Floats:
    """0-1 matrix (blocks, cells) of consecutive cells."""
    block = np.arange(cells) // merged
    return (np.arange(block[-1] + 1)[:, None] == block).astype(np.float64)
