"""The range queries that a survey is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from equipoise.data.loading import Batch
from equipoise.data.population import Floats, Integers, Population
from equipoise.data.sampling import BatchIndex

RANDOM = float("nan")


@dataclass(frozen=True)
class RangeWorkload:
    """ranges: half-open (n, attributes, 2); truth (n,): the fraction of the people inside.

    volume (n,): the part of the domain that a range of fixed volume covers, not a number for the
    ranges with random ends.
    """

    ranges: Integers
    truth: Floats
    volume: Floats

    def __len__(self) -> int:
        return len(self.ranges)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """Return the queries of the rows in `index`."""
        parts = {"ranges": self.ranges, "truth": self.truth, "volume": self.volume}
        return {
            **{name: torch.from_numpy(part)[index.rows] for name, part in parts.items()},
            "index": index.rows,
        }


def workload(
    population: Population,
    queries: int,
    volumes: Sequence[float],
    generator: np.random.Generator,
) -> RangeWorkload:
    """`queries` ranges with random ends, then as many of each volume, with their true fractions."""
    kinds = [random_ranges(population.domain, queries, generator)]
    kinds += [ranges_of(population.domain, queries, volume, generator) for volume in volumes]
    ranges = np.concatenate(kinds)
    volume = np.repeat(np.array([RANDOM, *volumes], dtype=np.float64), queries)
    return RangeWorkload(ranges, population.fractions(ranges), volume)


def random_ranges(domain: tuple[int, ...], count: int, generator: np.random.Generator) -> Integers:
    """(count, attributes, 2): in each attribute two uniform ends that differ."""
    ends = [_two_ends(size, count, generator) for size in domain]
    return np.stack(ends, axis=1)


def ranges_of(
    domain: tuple[int, ...], count: int, volume: float, generator: np.random.Generator
) -> Integers:
    """(count, attributes, 2): uniformly placed boxes over `volume` of the domain.

    Every attribute's range covers volume^(1 / attributes) of it, to the nearest cell and at least
    one.
    """
    part = volume ** (1 / len(domain))
    lengths = [max(1, round(part * size)) for size in domain]
    lows = [
        generator.integers(0, size - length + 1, count)
        for size, length in zip(domain, lengths, strict=True)
    ]
    boxes = [
        np.stack((low, low + length), axis=1) for low, length in zip(lows, lengths, strict=True)
    ]
    return np.stack(boxes, axis=1)


def _two_ends(size: int, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    first = generator.integers(0, size + 1, count)
    second = (first + generator.integers(1, size + 1, count)) % (size + 1)
    return np.sort(np.stack((first, second), axis=1), axis=1)
