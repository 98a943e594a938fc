"""The order of an epoch and its division among processes."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from equipoise.data.sampling import (
    BatchIndex,
    OrderedIndices,
    Shard,
    ShuffledIndices,
    stream,
    stream_seed,
)


def test_the_order_is_a_pure_function_of_seed_and_epoch() -> None:
    indices = ShuffledIndices(100, 16, seed=3, shard=Shard())
    first = torch.cat(indices.batches())
    indices.set_epoch(1)
    second = torch.cat(indices.batches())
    torch.rand(7)
    indices.set_epoch(0)
    assert torch.equal(first, torch.cat(indices.batches()))
    assert not torch.equal(first, second)
    assert torch.equal(second.sort().values, torch.arange(100))
    other = ShuffledIndices(100, 16, seed=4, shard=Shard())
    assert not torch.equal(first, torch.cat(other.batches()))


@pytest.mark.parametrize("size", [1, 2, 3, 31, 64, 65, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_ranks_take_equal_numbers_of_batches_and_leave_nothing_out(
    size: int, world_size: int, batch_size: int
) -> None:
    shards = [Shard(rank, world_size) for rank in range(world_size)]
    shuffled = [ShuffledIndices(size, batch_size, 0, shard) for shard in shards]
    ordered = [OrderedIndices(size, batch_size, shard) for shard in shards]
    for group in (shuffled, ordered):
        batches = [indices.batches() for indices in group]
        assert {len(b) for b in batches} == {len(indices) for indices in group}
        assert len({len(b) for b in batches}) == 1
        assert all(0 < len(rows) <= batch_size for b in batches for rows in b)
        visited = torch.cat([rows for b in batches for rows in b])
        assert torch.equal(visited.unique(), torch.arange(size))
    assert len({sum(len(rows) for rows in i.batches()) for i in shuffled}) == 1


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_visits_no_sample_twice(world_size: int) -> None:
    for size in (65, 97, 128):
        shards = [OrderedIndices(size, 8, Shard(rank, world_size)) for rank in range(world_size)]
        visited = torch.cat([rows for shard in shards for rows in shard.batches()])
        assert len(visited) == size


def test_one_process_gets_full_batches_and_the_rest() -> None:
    assert [len(rows) for rows in OrderedIndices(70, 32, Shard()).batches()] == [32, 32, 6]
    assert [len(rows) for rows in ShuffledIndices(70, 32, 0, Shard()).batches()] == [32, 32, 6]


def test_a_request_reaches_a_worker_without_shared_memory() -> None:
    """Sharing takes a lock in the main process, and a worker forked meanwhile never gets it."""
    sent = ForkingPickler.dumps(BatchIndex(3, torch.arange(50).split(16)[1]))
    assert b"torch.multiprocessing" in bytes(ForkingPickler.dumps(torch.arange(16)))
    assert b"torch.multiprocessing" not in bytes(sent)
    epoch, rows = ForkingPickler.loads(sent)
    assert epoch == 3
    assert rows.dtype == torch.int64
    assert torch.equal(rows, torch.arange(16, 32))


def test_a_key_names_one_stream() -> None:
    torch.manual_seed(1)
    first = torch.rand(4, generator=stream(3, 5))
    torch.manual_seed(2)
    assert torch.equal(first, torch.rand(4, generator=stream(3, 5)))


def test_keys_do_not_collide() -> None:
    keys: list[tuple[int, ...]] = [(a, b) for a in range(20) for b in range(20)] + [
        (a,) for a in range(20)
    ]
    keys += [(a, b, 0) for a in range(20) for b in range(20)]
    assert len({stream_seed(*key) for key in keys}) == len(keys)
