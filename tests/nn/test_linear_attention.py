"""Smoothing in linear time against the weights of every pair."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equipoise.nn.content_kernels import KeyFeatures
from equipoise.nn.linear_attention import CHUNK, chunk_sizes, smooth, smooth_causally

FEATURES, WIDTH = 3, 2
around_a_chunk = st.sampled_from([1, 2, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
Given = tuple[Tensor, KeyFeatures, Tensor]


def drawn(queries: int, keys: int, spread: float | None, seed: int = 0) -> Given:
    """Positive features, as those of a positive kernel; `spread` is that of the log scales."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(1, 2, *shape, dtype=torch.float64, generator=generator)

    log_scale = None if spread is None else spread * draw(keys)
    features = KeyFeatures(draw(keys, FEATURES).abs() + 0.1, log_scale)
    return draw(queries, FEATURES).abs() + 0.1, features, draw(keys, WIDTH)


def pair_by_pair(query: Tensor, keys: KeyFeatures, value: Tensor, *, causal: bool) -> Tensor:
    """In logarithms, so that no scale is too large."""
    logs = (query @ keys.features.transpose(-1, -2)).log()
    if keys.log_scale is not None:
        logs = logs + keys.log_scale.unsqueeze(-2)
    if causal:
        hidden = torch.ones_like(logs, dtype=torch.bool).triu(logs.shape[-1] - logs.shape[-2] + 1)
        logs = logs.masked_fill(hidden, float("-inf"))
    return torch.softmax(logs, dim=-1) @ value


@settings(max_examples=60, deadline=None)
@given(
    queries=around_a_chunk,
    memory=st.sampled_from([0, 1, CHUNK, CHUNK + 5]),
    spread=st.none() | st.sampled_from([1.0, 30.0, 1000.0]),
    causal=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_the_quadratic_form(
    queries: int, memory: int, spread: float | None, causal: bool, seed: int
) -> None:
    given_parts = drawn(queries, queries + memory, spread, seed)
    smoothing = smooth_causally if causal else smooth
    expected = pair_by_pair(*given_parts, causal=causal)
    torch.testing.assert_close(smoothing(*given_parts), expected, rtol=1e-8, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(
    queries=around_a_chunk,
    memory=st.sampled_from([0, 3, CHUNK]),
    first_changed=st.floats(0, 1),
    spread=st.none() | st.just(20.0),
)
def test_no_bit_of_a_later_key_is_seen(
    queries: int, memory: int, first_changed: float, spread: float | None
) -> None:
    query, keys, value = drawn(queries, queries + memory, spread)
    changed = int(first_changed * queries)
    before = smooth_causally(query, keys, value)
    later = slice(memory + changed, None)
    query[:, :, changed:] *= 2
    for part in (*keys, value):
        if part is not None:
            part[:, :, later] *= -50
    after = smooth_causally(query, keys, value)
    assert torch.equal(after[:, :, :changed], before[:, :, :changed])


@pytest.mark.parametrize("causal", [False, True])
def test_derivatives_are_those_of_finite_differences(causal: bool) -> None:
    query, keys, value = drawn(3, 4, 1.0)
    smoothing = smooth_causally if causal else smooth

    def smoothed(query: Tensor, features: Tensor, value: Tensor) -> Tensor:
        return smoothing(query, KeyFeatures(features, keys.log_scale), value)

    inputs = (query.requires_grad_(), keys.features.requires_grad_(), value.requires_grad_())
    assert torch.autograd.gradcheck(smoothed, inputs)


def test_gradients_across_chunks_are_those_of_the_quadratic_form() -> None:
    gradients = []
    for smoothing in (smooth_causally, lambda *parts: pair_by_pair(*parts, causal=True)):
        query, keys, value = drawn(CHUNK + 9, 2 * CHUNK + 20, 2.0)
        leaves = [part.requires_grad_() for part in (query, keys.features, value)]
        smoothing(query, keys, value).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-8)


@given(queries=st.integers(1, 400), memory=st.integers(0, 400))
def test_chunks_cover_the_keys_once_and_begin_anew_at_the_queries(
    queries: int, memory: int
) -> None:
    sizes, before = chunk_sizes(queries, queries + memory)
    assert sum(sizes[:before]) == memory
    assert sum(sizes[before:]) == queries
    assert 0 < min(sizes) <= max(sizes) <= CHUNK


def test_where_no_key_has_weight_the_result_is_0() -> None:
    query, _, value = drawn(2, 3, None)
    nothing = KeyFeatures(torch.zeros(1, 2, 3, FEATURES, dtype=torch.float64))
    for smoothing in (smooth, smooth_causally):
        assert not smoothing(query, nothing, value).any()
