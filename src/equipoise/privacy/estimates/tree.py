"""A tree of boxes, where each level splits the boxes above, and the measurements of its nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.client.errors import PrivacyError
from equipoise.privacy.client.round import Domain
from equipoise.privacy.oracles import FrequencyOracle
from equipoise.privacy.oracles.randomizer import Floats, Integers

MOST_LEAVES = 1 << 22


class Families(NamedTuple):
    """The nodes of one level, grouped by parent.

    children: the level's slice of nodes; parents: nodes with children in it; starts: index of each
    family's first child, counted from the level's start; owner: for each child the position of its
    parent in `parents`.
    """

    children: slice
    parents: Integers
    starts: Integers
    owner: Integers


class Tree:
    """Nodes in breadth-first order; node 0 is the whole domain.

    The domain is padded to powers of `branching`, never cut: boxes are clipped to it, and boxes
    that lie in the padding alone do not exist. An attribute whose boxes are single values is not
    split further, so attributes may differ in size. low, high: int64 (nodes, attributes).
    """

    def __init__(self, domain: Domain, branching: int) -> None:
        if isinstance(branching, bool) or branching < 2:
            raise PrivacyError(f"A tree needs at least two branches, got {branching}.")
        self.domain = domain
        self.branching = branching
        self.depth_by_attribute = [levels_of(size, branching) for size in domain]
        self.low = np.zeros((1, len(domain)), dtype=np.int64)
        self.high = np.array([domain], dtype=np.int64)
        self.parent = np.array([-1], dtype=np.int64)
        self.depth = np.zeros(1, dtype=np.int64)
        self.has_children = np.zeros(1, dtype=bool)
        self.families: list[Families] = []

    @classmethod
    def full(cls, domain: Domain, branching: int) -> Tree:
        """Split down to single values; raises PrivacyError where there are more than 2^22."""
        if math.prod(domain) > MOST_LEAVES:
            raise PrivacyError(
                f"A tree of all {math.prod(domain)} values is too large; use ahead_pairs or hdg."
            )
        tree = cls(domain, branching)
        for _ in range(tree.levels):
            tree.split(np.flatnonzero(tree.depth == tree.depth[-1]))
        return tree

    def __len__(self) -> int:
        return len(self.parent)

    @property
    def levels(self) -> int:
        """Depth at which every box is a single value: ceil(log_B D) of the largest attribute."""
        return max(self.depth_by_attribute)

    @property
    def splittable(self) -> NDArray[np.bool_]:
        """(nodes,) whether a box holds more than one value."""
        return np.any(self.high - self.low > 1, axis=1)

    @property
    def leaves(self) -> Integers:
        """Nodes without children; their boxes partition the domain."""
        return np.flatnonzero(~self.has_children)

    def volumes(self) -> Integers:
        """(nodes,) number of values in each box."""
        return (self.high - self.low).prod(axis=1)

    def partition(self, level: int) -> Integers:
        """Nodes of this depth and the leaves above it; their boxes partition the domain."""
        at_level = self.depth == level
        return np.flatnonzero(at_level | (~self.has_children & (self.depth < level)))

    def split(self, nodes: Integers) -> None:
        """Split those of the `nodes`, all of the deepest level, that can be split."""
        nodes = nodes[self.splittable[nodes]]
        if not len(nodes):
            return
        level = int(self.depth[-1]) + 1
        low, high, owner = self._children(nodes, level)
        start = len(self)
        self.low = np.concatenate((self.low, low))
        self.high = np.concatenate((self.high, high))
        self.parent = np.concatenate((self.parent, nodes[owner]))
        self.depth = np.concatenate((self.depth, np.full(len(owner), level)))
        self.has_children[nodes] = True
        self.has_children = np.concatenate((self.has_children, np.zeros(len(owner), dtype=bool)))
        starts = np.searchsorted(owner, np.arange(len(nodes)))
        self.families.append(Families(slice(start, len(self)), nodes, starts, owner))

    def _children(self, nodes: Integers, level: int) -> tuple[Integers, Integers, Integers]:
        """low, high and position of the parent, for all children that touch the domain."""
        width = self._padded_width(level)
        parts = np.minimum(self._padded_width(level - 1), self.domain) // -width * -1
        offsets = np.array(list(product(*(range(count) for count in parts)))) * width
        low = self.low[nodes][:, None, :] + offsets
        high = np.minimum(low + width, self.high[nodes][:, None, :])
        owner, part = np.nonzero((low < high).all(axis=2))
        return low[owner, part], high[owner, part], owner

    def _padded_width(self, level: int) -> Integers:
        """Width of the unclipped boxes of a level, for each attribute."""
        powers = [max(depth - level, 0) for depth in self.depth_by_attribute]
        return np.array([self.branching**power for power in powers], dtype=np.int64)


def levels_of(size: int, branching: int) -> int:
    """Smallest c with branching^c >= size; logarithms of floats would miss exact powers."""
    levels, width = 0, 1
    while width < size:
        width *= branching
        levels += 1
    return levels


@dataclass
class Measurements:
    """Running weighted means, and the parts of their variance; every array is (nodes,).

    The variance at frequency f is noise + slope f + sampling f (1 - f): the randomizer on an empty
    cell, the addition of an occupied cell, and the random split of people into rounds. fewest:
    number of reports in the smallest round.
    """

    mean: Floats
    weight: Floats
    noise: Floats
    slope: Floats
    sampling: Floats
    fewest: float = math.inf

    @classmethod
    def none(cls, nodes: int) -> Measurements:
        """Nothing measured but the root, whose frequency is 1 by definition."""
        mean, weight, noise, slope, sampling = np.zeros((5, nodes))
        mean[0] = 1.0
        return cls(mean, weight, noise, slope, sampling)

    def add(
        self,
        nodes: Integers,
        estimate: Floats,
        weight: float,
        oracle: FrequencyOracle,
        reports: int,
    ) -> None:
        """Add one round's estimates of `nodes`, weighted against those of earlier rounds."""
        self.fewest = min(self.fewest, reports)
        self.weight[nodes] += weight
        new = weight / self.weight[nodes]
        self.mean[nodes] += new * (estimate - self.mean[nodes])
        parts = (
            (self.noise, oracle.variance(reports)),
            (self.slope, oracle.variance_slope(reports)),
            (self.sampling, 1 / reports),
        )
        for array, added in parts:
            array[nodes] = (1 - new) ** 2 * array[nodes] + new**2 * added

    def known_noise(self) -> Floats:
        """The noise variance, infinite at nodes that were never measured."""
        return np.where(self.weight > 0, self.noise, np.inf)

    def variance(self, frequencies: Floats) -> Floats:
        """The total variance at these frequencies, clipped to [0, 1]; 0 at the root."""
        f = np.clip(frequencies, 0.0, 1.0)
        return self.noise + self.slope * f + self.sampling * f * (1 - f)
