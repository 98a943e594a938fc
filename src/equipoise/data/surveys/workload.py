"""Who answers a survey in which round, and the range queries by which it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.data.loading import Batch
from equipoise.data.sampling import BatchIndex, Shard
from equipoise.data.surveys.population import Floats, Integers, Population

RANDOM = float("nan")


@dataclass(frozen=True)
class RangeWorkload:
    """ranges: half-open (n, attributes, 2); truth (n,): the fraction of the people inside.

    volume (n,): the fraction of the domain that a range of fixed volume covers, nan for ranges with
    random ends.
    """

    ranges: Integers
    truth: Floats
    volume: Floats

    def __len__(self) -> int:
        return len(self.ranges)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """The queries of the rows in `index`."""
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


class SurveyGroups:
    """The people of round `epoch`, of several repetitions of a survey side by side.

    groups (repeats, people): the round in which each person answers; values (people, attributes).
    A block holds the next `size` people of every repetition's group. Its content does not depend on
    how many processes share the blocks.
    """

    def __init__(self, values: Integers, groups: NDArray, rounds: int, size: int) -> None:
        self.values = values
        self.size = size
        # The people of each repetition in the order of their rounds, and where each round begins.
        self.order = np.argsort(groups, axis=1, kind="stable")
        counts = np.stack([np.bincount(group, minlength=rounds) for group in groups])
        self.starts = np.insert(counts.cumsum(axis=1), 0, 0, axis=1)
        self.blocks = max(1, -(-int(counts.max(initial=0)) // size))

    def __len__(self) -> int:
        """The number of blocks that the largest group needs; others end with empty ones."""
        return self.blocks

    def __getitem__(self, index: BatchIndex) -> Batch:
        """The block index.rows[0]: values (n, attributes), index (n,) of the people.

        sizes (repeats,): how many of the n belong to each repetition, in their order; block: its
        number. A number beyond the last block gives an empty one.
        """
        block = int(index.rows[0])
        begin, end = self.starts[:, index.epoch], self.starts[:, index.epoch + 1]
        first = np.minimum(begin + block * self.size, end)
        last = np.minimum(first + self.size, end)
        parts = zip(self.order, first.tolist(), last.tolist(), strict=True)
        people = np.concatenate([order[a:b] for order, a, b in parts])
        return {
            "values": torch.from_numpy(self.values[people]),
            "index": torch.from_numpy(people),
            "sizes": torch.from_numpy(last - first),
            "block": torch.tensor(block),
        }


class BlockIndices:
    """The blocks that this process takes: every world_size-th one, each by one process alone.

    All processes get the same number of blocks, including blocks without a person, because a
    process that ends early would leave the others waiting.
    """

    def __init__(self, blocks: int, shard: Shard) -> None:
        self.blocks = blocks
        self.shard = shard
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the round; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of blocks of a process."""
        return -(-self.blocks // self.shard.world_size)

    def batches(self) -> tuple[Tensor, ...]:
        """The number of each block."""
        rank, processes = self.shard
        return tuple(torch.tensor([rank + processes * turn]) for turn in range(len(self)))
