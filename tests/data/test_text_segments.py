"""Segments continue each other, and every token is predicted once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equipoise.data.sampling import BatchIndex, Shard
from equipoise.data.text_segments import IGNORED, SegmentIndices, TextSegments


def batches(count: int, streams: int, length: int, shard: Shard | None = None) -> list[dict]:
    segments = TextSegments(torch.arange(count, dtype=torch.int32), streams, length)
    indices = SegmentIndices(streams, segments.segments, shard or Shard())
    return [segments[BatchIndex(0, rows)] for rows in indices.batches()]


@given(st.integers(2, 200), st.integers(1, 7), st.integers(1, 30))
def test_every_token_but_the_first_is_a_target_once(count: int, streams: int, length: int) -> None:
    found = torch.cat([batch["targets"].flatten() for batch in batches(count, streams, length)])
    assert sorted(found[found != IGNORED].tolist()) == list(range(1, count))


@given(st.integers(2, 200), st.integers(1, 7), st.integers(1, 30))
def test_targets_are_the_tokens_one_place_later_across_segments(
    count: int, streams: int, length: int
) -> None:
    whole = batches(count, streams, length)
    tokens = torch.cat([batch["tokens"] for batch in whole], dim=1)
    targets = torch.cat([batch["targets"] for batch in whole], dim=1)
    counted = targets != IGNORED
    assert torch.equal(targets[counted], tokens[counted] + 1)
    continued = counted[:, :-1]
    assert torch.equal(tokens[:, 1:][continued], targets[:, :-1][continued])


def test_only_the_first_batch_starts_and_the_last_may_be_shorter() -> None:
    whole = batches(50, streams=3, length=7)
    assert [bool(batch["start"]) for batch in whole] == [True, False, False]
    assert [batch["tokens"].shape for batch in whole] == [(3, 7), (3, 7), (3, 3)]


def test_shapes_and_types_are_those_of_a_batch_of_tokens() -> None:
    batch = batches(50, streams=3, length=7)[0]
    assert set(batch) == {"tokens", "targets", "index", "start"}
    assert batch["tokens"].dtype == batch["targets"].dtype == batch["index"].dtype == torch.int64
    assert batch["start"].dtype == torch.bool
    assert batch["start"].shape == ()


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_processes_of_a_run_share_the_streams(processes: int) -> None:
    alone = batches(100, streams=4, length=6)
    shared = [batches(100, 4, 6, Shard(rank, processes)) for rank in range(processes)]
    for place, batch in enumerate(alone):
        rows = torch.cat([own[place]["tokens"] for own in shared])
        order = torch.cat([own[place]["index"] for own in shared]).argsort()
        assert torch.equal(rows[order], batch["tokens"])
    assert all(len(own) == len(alone) for own in shared)
