"""Which samples an epoch visits, in which order, and which of them belong to this process."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: the step between the counters of a stream."""
LOW, FRACTION = np.uint64(40), np.uint64(2**24 - 1)
"""The shift that leaves the upper 24 bits, and the mask of the lower 24."""
Keys = NDArray[np.uint64]


def stream_seed(*key: int) -> int:
    """A 64-bit seed that is a pure function of `key`, integers of at least 0.

    Keys that differ, even by one bit, give unrelated seeds (by the hash of NumPy's `SeedSequence`;
    that treats (1,) and (1, 0) alike, so the length is put in front).
    """
    return int(np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)[0])


def stream(*key: int) -> torch.Generator:
    """A generator on the CPU that is a pure function of `key`."""
    return torch.Generator().manual_seed(stream_seed(*key))


def row_keys(rows: Tensor, *key: int) -> Keys:
    """A 64-bit seed for each of the rows (B,), a pure function of `key` and of that row alone."""
    numbers = rows.numpy().astype(np.uint64) + np.uint64(1)
    return _mixed(np.uint64(_remembered_seed(*key)) + numbers * GOLDEN)


_remembered_seed = lru_cache(maxsize=16)(stream_seed)
"""The same for every batch of an epoch."""


def uniforms(keys: Keys, count: int) -> Tensor:
    """`count` numbers in [0, 1) for each key (B,), float32 (B, count), all rows at once.

    A row is a pure function of its key. One generator per row, as `stream` makes, would cost more
    than the numbers. Source: SplitMix64 (Steele, Lea and Flood 2014).
    """
    return _fractions(_drawn(keys, count) >> LOW)


def normals(keys: Keys, count: int) -> Tensor:
    """`count` standard normal numbers for each key (B,), float32 (B, count), by Box and Muller."""
    drawn = _drawn(keys, (count + 1) // 2)
    first, second = _fractions(drawn >> LOW), _fractions(drawn & FRACTION)
    radius = torch.log1p(first.neg_()).mul_(-2).sqrt_()
    angle = second.mul_(2 * torch.pi)
    return torch.cat([angle.cos().mul_(radius), angle.sin().mul_(radius)], dim=1)[:, :count]


def _drawn(keys: Keys, count: int) -> Keys:
    """(B, count) numbers of 64 bits, each a function of its key and its place."""
    return _mixed(keys[:, None] + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN)


def _fractions(bits: Keys) -> Tensor:
    """Numbers of 24 bits, which float32 holds, as fractions of 2^24."""
    return torch.from_numpy(bits.astype(np.float32)).mul_(2**-24)


def _mixed(numbers: Keys) -> Keys:
    """Mix the bits of each number in place, so that flipping one bit changes half of the others."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        numbers ^= numbers >> np.uint64(shift)
        numbers *= np.uint64(factor)
    return numbers


def stratified_split(
    labels: Tensor, fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Divide the rows of `labels` (N,) into the rest and a held-out `fraction`, both ascending.

    The rows, shuffled and then sorted by class, are sampled at equal distances, so each class is
    held out in proportion to within one row. In total, round(fraction * N) rows are held out.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    held_count = round(fraction * len(labels))
    distance = len(labels) / max(held_count, 1)
    positions = ((torch.arange(held_count, dtype=torch.float64) + 0.5) * distance).long()
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[by_class[positions]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


class Shard(NamedTuple):
    """The part of each epoch that one process of a distributed run takes."""

    rank: int = 0
    world_size: int = 1


class BatchIndex(NamedTuple):
    """The request for one batch: the rows (B,) of a split, and the epoch that needs them.

    The epoch travels with the request because a worker process outlives it.

    The rows travel to a worker as plain numbers. A tensor would be moved into shared memory by a
    thread of the main process, under a torch lock. A worker forked at that moment (such as those of
    validation, beside those of training) would inherit the lock locked, and wait forever.
    """

    epoch: int
    rows: Tensor

    def __reduce__(self) -> tuple[Callable[[int, list[int]], BatchIndex], tuple[int, list[int]]]:
        """How a worker rebuilds the request."""
        return _from_numbers, (self.epoch, self.rows.tolist())


def _from_numbers(epoch: int, rows: list[int]) -> BatchIndex:
    return BatchIndex(epoch, torch.tensor(rows, dtype=torch.int64))


class EpochIndices(Protocol):
    """The rows that this process visits in the current epoch, already cut into batches."""

    epoch: int

    def __len__(self) -> int:
        """The number of batches, the same in every epoch and on every rank."""
        ...

    def batches(self) -> tuple[Tensor, ...]:
        """The rows of each batch."""
        ...


class ShuffledIndices:
    """A new order in each epoch, a pure function of (seed, epoch), divided among the ranks.

    Every rank gets the same number of samples: if `size` is not a multiple of the number of ranks,
    the first samples of the order are repeated. The last batch may be smaller, or is left out with
    `drop_last`.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, shard: Shard, drop_last: bool = False
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.shard = shard
        self.drop_last = drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of batches on this rank."""
        whole, rest = divmod(self._shard_size(), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def batches(self) -> tuple[Tensor, ...]:
        """The rows of each batch of the current epoch."""
        order = torch.randperm(self.size, generator=stream(self.seed, self.epoch))
        padded = order[torch.arange(self._shard_size() * self.shard.world_size) % self.size]
        rows = padded[self.shard.rank :: self.shard.world_size]
        return rows.split(self.batch_size)[: len(self)]

    def _shard_size(self) -> int:
        return -(-self.size // self.shard.world_size)


class OrderedIndices:
    """The samples in their stored order in each epoch, divided among the ranks without repeats.

    Every rank gets the same number of batches, since a rank that ends early would leave the others
    waiting in a collective operation: a shard that is one sample short is cut into as many batches,
    slightly smaller ones. Only a shard with fewer samples than batches repeats some.
    """

    def __init__(self, size: int, batch_size: int, shard: Shard) -> None:
        self.size = size
        self.batch_size = batch_size
        self.shard = shard
        self.epoch = 0

    def __len__(self) -> int:
        """The number of batches on this rank."""
        longest_shard = -(-self.size // self.shard.world_size)
        return -(-longest_shard // self.batch_size)

    def batches(self) -> tuple[Tensor, ...]:
        """The rows of each batch."""
        rows = torch.arange(self.size)[self.shard.rank :: self.shard.world_size]
        missing = max(len(self) - len(rows), 0)
        rows = torch.cat([rows, torch.arange(missing) % self.size])
        whole = rows.split(self.batch_size)
        return whole if len(whole) == len(self) else rows.tensor_split(len(self))


class LengthBuckets:
    """Batches of samples of similar length, limited by samples and by tokens, for all ranks.

    lengths: int (N,), the tokens of each sample. A batch has at most `batch_size` samples and, with
    each of them padded to the longest, at most `batch_tokens` tokens, which no sample may exceed.
    Samples of equal length are shuffled, as is the order of the batches, both as a pure function of
    (seed, epoch). Without a `seed` the order is the same in every epoch, but no less mixed: any
    part of the batches has samples of every length.

    Every rank gets the same number of batches in every epoch, and at each step samples of about the
    same length. No sample is visited twice in an epoch, unless there are fewer samples than batches
    of all ranks together.
    """

    def __init__(
        self,
        lengths: Tensor,
        *,
        batch_size: int,
        batch_tokens: int,
        seed: int | None,
        shard: Shard,
    ) -> None:
        self.lengths = lengths
        self.seed = seed
        self.shard = shard
        self.epoch = 0
        longest_first = lengths.sort(descending=True).values.tolist()
        self.starts = _bucket_starts(longest_first, batch_size, batch_tokens, shard.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of batches on this rank."""
        return len(self.starts)

    def batches(self) -> tuple[Tensor, ...]:
        """The rows of each batch of the current epoch."""
        generator = stream(0) if self.seed is None else stream(self.seed, self.epoch)
        rows = torch.randperm(len(self.lengths), generator=generator)
        longest_first = rows[self.lengths[rows].argsort(descending=True, stable=True)]
        buckets = longest_first.tensor_split(self.starts[1:])
        order = torch.randperm(len(buckets), generator=generator)
        return tuple(self._of_rank(buckets[place]) for place in order.tolist())

    def _of_rank(self, bucket: Tensor) -> Tensor:
        rank, world_size = self.shard
        first = rank if rank < len(bucket) else rank % len(bucket)
        return bucket[first::world_size]


def _bucket_starts(
    longest_first: list[int], batch_size: int, batch_tokens: int, ranks: int
) -> list[int]:
    """Where each bucket (one batch for every rank) begins among samples sorted by length."""
    size, starts = len(longest_first), [0]
    while True:
        most = min(batch_size, batch_tokens // longest_first[starts[-1]])
        following = starts[-1] + ranks * max(most, 1)
        if following >= size:
            break
        starts.append(following)
    if len(starts) > 1:  # so that the last bucket also has a sample for each rank
        starts[-1] = max(min(starts[-1], size - ranks), starts[-2] + ranks)
    return starts
