"""Streams are pure functions of their key."""

from __future__ import annotations

import torch

from equipoise.data.random_streams import stream, stream_seed


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
