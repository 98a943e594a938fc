"""The order of an epoch and its division among processes."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from equipoise.data.sampling import (
    BatchIndex,
    LengthBuckets,
    OrderedIndices,
    Shard,
    ShuffledIndices,
    normals,
    row_keys,
    stratified_split,
    stream,
    stream_seed,
    uniforms,
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
@pytest.mark.parametrize("size", [15, 16, 63, 64, 65, 100])
def test_only_whole_batches_are_left_without_the_last(size: int, world_size: int) -> None:
    for rank in range(world_size):
        shard = Shard(rank, world_size)
        whole = ShuffledIndices(size, 16, 0, shard, drop_last=True)
        batches, every = whole.batches(), ShuffledIndices(size, 16, 0, shard).batches()
        assert len(batches) == len(whole) == -(-size // world_size) // 16
        assert all(torch.equal(rows, other) for rows, other in zip(batches, every, strict=False))
        assert {len(rows) for rows in batches} <= {16}


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


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=120).map(torch.tensor)
WORLDS = st.integers(1, 4)


def buckets(lengths: Tensor, world_size: int, **settings: Any) -> list[LengthBuckets]:
    protocol = {"batch_size": 8, "batch_tokens": 60, "seed": 3, **settings}
    shards = [Shard(rank, world_size) for rank in range(world_size)]
    return [LengthBuckets(lengths, shard=shard, **protocol) for shard in shards]


@given(LENGTHS, WORLDS, st.integers(1, 9), st.integers(40, 200), st.sampled_from([None, 0, 5]))
def test_buckets_hold_every_sample_once_within_their_limits(
    lengths: Tensor, world_size: int, batch_size: int, batch_tokens: int, seed: int | None
) -> None:
    settings = {"batch_size": batch_size, "batch_tokens": batch_tokens, "seed": seed}
    ranks = buckets(lengths, world_size, **settings)
    for epoch in range(2):
        for rank in ranks:
            rank.set_epoch(epoch)
        parts = [rank.batches() for rank in ranks]
        assert {len(part) for part in parts} == {len(rank) for rank in ranks}
        batches = [rows for part in parts for rows in part]
        assert all(0 < len(rows) <= batch_size for rows in batches)
        assert all(len(rows) * lengths[rows].max() <= batch_tokens for rows in batches)
        visited = torch.cat(batches)
        assert torch.equal(visited.unique(), torch.arange(len(lengths)))
        assert len(visited) == max(len(lengths), len(batches))


@given(LENGTHS, WORLDS)
def test_the_order_of_buckets_is_a_pure_function_of_seed_and_epoch(
    lengths: Tensor, world_size: int
) -> None:
    first, again = (buckets(lengths, world_size)[-1] for _ in range(2))
    numbers = [len(first.batches())]
    for epoch in (2, 1):
        first.set_epoch(epoch)
        numbers.append(len(first.batches()))
    torch.rand(5)
    again.set_epoch(1)
    assert all(map(torch.equal, first.batches(), again.batches()))
    assert len(set(numbers)) == 1


def test_buckets_change_with_the_epoch_and_the_seed_but_not_in_evaluation() -> None:
    lengths = torch.arange(200) % 10 + 1

    def order(seed: int | None, epoch: int) -> list[int]:
        (indices,) = buckets(lengths, 1, seed=seed)
        indices.set_epoch(epoch)
        return torch.cat(indices.batches()).tolist()

    assert len({tuple(order(*key)) for key in ((0, 0), (0, 1), (1, 0))}) == 3
    assert order(None, 0) == order(None, 1)


def test_a_few_batches_of_an_evaluation_have_short_and_long_samples() -> None:
    (indices,) = buckets(torch.arange(400) % 40 + 1, 1, seed=None)
    first = torch.cat(indices.batches()[: len(indices) // 5])
    assert (first % 40 < 10).any()
    assert (first % 40 >= 30).any()


def test_samples_of_equal_length_meet_others_in_the_next_epoch() -> None:
    (indices,) = buckets(torch.full((40,), 5), 1)
    first = {frozenset(rows.tolist()) for rows in indices.batches()}
    indices.set_epoch(1)
    assert first != {frozenset(rows.tolist()) for rows in indices.batches()}


def test_ranks_get_samples_of_like_length_at_each_step() -> None:
    lengths = torch.arange(120) % 30 + 1
    one, other = (rank.batches() for rank in buckets(lengths, 2))
    pairs = zip(one, other, strict=True)
    assert all(abs(int(lengths[a].max() - lengths[b].max())) <= 1 for a, b in pairs)


def test_length_saves_padding() -> None:
    lengths = torch.randint(1, 31, (500,), generator=stream(0))
    (indices,) = buckets(lengths, 1, batch_size=16, batch_tokens=480)
    padded = sum(len(rows) * int(lengths[rows].max()) for rows in indices.batches())
    assert lengths.sum() / padded > 0.95


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.1, 0.5, 0.9])
def test_every_row_is_in_one_part_and_classes_keep_their_shares(fraction: float) -> None:
    labels = torch.randint(0, 7, (1003,), generator=stream(0))
    rest, held = stratified_split(labels, fraction, stream(1))
    assert torch.equal(torch.cat([rest, held]).sort().values, torch.arange(1003))
    assert len(held) == round(fraction * 1003)
    shares = torch.bincount(labels[held], minlength=7) - fraction * torch.bincount(labels)
    assert shares.abs().max() <= 1.5


def test_the_seed_decides_and_neighbours_are_not_sampled_in_step() -> None:
    labels = torch.arange(1000) % 10
    held = [stratified_split(labels, 0.2, stream(seed))[1] for seed in (0, 0, 1)]
    assert torch.equal(held[0], held[1])
    assert not torch.equal(held[0], held[2])
    assert len(held[0].diff().unique()) > 3


def test_numbers_of_a_row_are_a_function_of_its_key_alone() -> None:
    rows = torch.tensor([7, 0, 12345])
    keys = row_keys(rows, 3, 1)
    assert row_keys(rows[1:], 3, 1).tolist() == keys[1:].tolist()
    for draw in (uniforms, normals):
        whole = draw(keys, 9)
        assert torch.equal(draw(keys[2:], 9), whole[2:])
        assert not torch.equal(draw(row_keys(rows, 3, 2), 9), whole)
    assert torch.equal(uniforms(keys, 4), uniforms(keys, 9)[:, :4])


def test_drawn_numbers_are_uniform_normal_and_independent() -> None:
    keys = row_keys(torch.arange(20_000), 0, 1)
    assert len(set(keys.tolist())) == len(keys)
    uniform, normal = uniforms(keys, 8), normals(keys, 7)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert normal.shape == (20_000, 7)
    assert normal.isfinite().all()
    counts = (uniform * 16).long().flatten().bincount(minlength=16)
    expected = uniform.numel() / 16
    assert ((counts - expected).square() / expected).sum() < 45  # chi-square, 15 degrees: p 1e-4
    assert normal.mean().abs() < 0.012
    assert abs(normal.std() - 1) < 0.01
    assert abs(normal.pow(4).mean() - 3) < 0.15
    for numbers in (uniform, normal):
        others = torch.corrcoef(numbers.T).fill_diagonal_(0).abs().max()
        neighbours = torch.corrcoef(torch.stack([numbers[:-1].flatten(), numbers[1:].flatten()]))
        assert others < 0.035
        assert abs(neighbours[0, 1]) < 0.012
