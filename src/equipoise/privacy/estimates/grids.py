"""Coarse grids over one or two attributes, and how they are reconciled (HDG, CALM)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.client.round import Domain
from equipoise.privacy.estimates.distributions import norm_sub
from equipoise.privacy.estimates.tree import levels_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


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
        """Sums over bins of `width` along the attribute, and how many cells a bin adds up."""
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
