"""MulT's attention: what is seen, what is not, and what is made of it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.mult.attention import BLOCK, Attention, View, on_a_cpu, view


def attention(
    width: int = 6, heads: int = 2, source_width: int | None = None, dropout: float = 0.0
) -> Attention:
    """With biases that are not 0."""
    torch.manual_seed(0)
    part = Attention(width, heads, source_width=source_width, dropout=dropout).double()
    for name, parameter in part.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return part


def features(batch: int, length: int, width: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, width, generator=generator, dtype=torch.float64)


def dense(seen: View, batch: int, queries: int, keys: int) -> Tensor:
    """What a view lets through, (B, Q, K)."""
    visible = torch.ones(queries, keys, dtype=torch.bool)
    if seen.triangular:
        visible = visible.tril()
    if seen.visible is not None:
        visible = seen.visible
    if seen.blind is not None:
        visible = visible & ~seen.blind
    return visible.expand(batch, 1, queries, keys).squeeze(1)


LENGTH = st.integers(1, 6)


@given(queries=LENGTH, keys=LENGTH, causal=st.booleans(), hides=st.booleans(), data=st.data())
def test_a_query_sees_the_keys_of_its_place_that_are_present(
    queries: int, keys: int, causal: bool, hides: bool, data: st.DataObject
) -> None:
    rows = st.lists(st.booleans(), min_size=keys, max_size=keys)
    present = torch.tensor(data.draw(st.lists(rows, min_size=2, max_size=2))) if hides else None
    seen = view(queries, keys, causal=causal, present=present, like=torch.zeros(()))
    found = dense(seen, 2, queries, keys)
    for b in range(2):
        for i in range(queries):
            for j in range(keys):
                there = present is None or bool(present[b, j])
                assert found[b, i, j] == (there and (not causal or j <= i + abs(keys - queries)))
    if seen.visible is not None:
        assert seen.visible.any(dim=-1).all(), "no kernel gets a row without keys"


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (3, 5), (5, 3)])
def test_it_is_torchs_attention(queries: int, keys: int, causal: bool) -> None:
    ours = attention()
    theirs = nn.MultiheadAttention(6, 2, batch_first=True, dtype=torch.float64)
    parts = (ours.query, ours.key, ours.value)
    theirs.in_proj_weight.data = torch.cat([part.weight for part in parts]).detach()
    theirs.in_proj_bias.data = torch.cat([part.bias for part in parts]).detach()
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    x, source = features(2, queries), features(2, keys, seed=1)
    seen = view(queries, keys, causal=causal, present=None, like=x)
    hidden = ~dense(seen, 1, queries, keys)[0]
    expected, weights = theirs(x, source, source, attn_mask=hidden, average_attn_weights=False)
    torch.testing.assert_close(ours(x, source, source, seen), expected)
    torch.testing.assert_close(ours.weights(x, source, seen), weights)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("hides", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (3, 5), (5, 3)])
def test_nothing_comes_from_keys_that_are_not_seen(
    queries: int, keys: int, hides: bool, causal: bool, dropout: float
) -> None:
    part = attention(dropout=dropout).train()
    present = torch.ones(2, keys, dtype=torch.bool)
    present[0, :2], present[1] = False, False
    x, source = features(2, queries), features(2, keys, seed=1).requires_grad_()
    seen = view(queries, keys, causal=causal, present=present if hides else None, like=x)
    out = part(x, source, source, seen)
    visible = dense(seen, 2, queries, keys)
    for i in range(queries):
        (slope,) = torch.autograd.grad(out[:, i].sum(), source, retain_graph=True)
        assert slope.isfinite().all()
        assert not slope[~visible[:, i]].any()
        if dropout == 0:
            assert slope[visible[:, i]].any(dim=-1).all()


def test_a_query_that_sees_nothing_attends_to_zeros() -> None:
    part = attention()
    x, source = features(2, 3).requires_grad_(), features(2, 4, seed=1).requires_grad_()
    present = torch.tensor([[False] * 4, [False, True, True, True]])
    seen = view(3, 4, causal=True, present=present, like=x)
    out = part(x, source, source, seen)
    torch.testing.assert_close(out[0], part.output.bias.expand(3, 6))
    assert not part.weights(x, source, seen)[0].any()
    out.sum().backward()
    for tensor in (x, source, *part.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@given(
    queries=LENGTH, keys=LENGTH, heads=st.sampled_from([1, 2, 3]), source_width=st.integers(1, 7)
)
def test_the_weights_are_those_that_mix_the_values(
    queries: int, keys: int, heads: int, source_width: int
) -> None:
    part = attention(heads=heads, source_width=source_width)
    x, source = features(2, queries), features(2, keys, source_width, seed=1)
    seen = view(queries, keys, causal=True, present=None, like=x)
    weights = part.weights(x, source, seen)
    assert weights.shape == (2, heads, queries, keys)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))
    values = part.value(source).unflatten(-1, (heads, -1))
    mixed = torch.einsum("bhqk,bkhd->bqhd", weights, values).flatten(2)
    torch.testing.assert_close(part(x, source, source, seen), part.output(mixed))


@pytest.mark.parametrize("width", [3, 16, 20])
@pytest.mark.parametrize("length", [1, BLOCK, BLOCK + 1, 2 * BLOCK + 7])
def test_the_way_of_a_cpu_leads_to_the_same_triangle(length: int, width: int) -> None:
    heads = [features(2, 2 * length, width, seed=n).view(2, 2, length, width) for n in range(3)]
    whole = functional.scaled_dot_product_attention(*heads, is_causal=True)
    torch.testing.assert_close(on_a_cpu(*heads, View(triangular=True), 0.0), whole)


@pytest.mark.parametrize("keys", [BLOCK + 1, BLOCK + 40])
@pytest.mark.parametrize("queries", [5, BLOCK + 1])
def test_many_keys_are_attended_to_alike(queries: int, keys: int) -> None:
    part = attention(width=12)
    x, source = features(2, queries, 12), features(2, keys, 12, seed=1)
    present = torch.rand(2, keys, generator=torch.Generator().manual_seed(0)) < 0.5
    for padding in (None, present):
        seen = view(queries, keys, causal=True, present=padding, like=x)
        weights = part.weights(x, source, seen)
        values = part._split(part.value(source))
        expected = part.output((weights @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(part(x, source, source, seen), expected)


@pytest.mark.parametrize("keys", [3, 4])
def test_dropout_leaves_the_mean_as_it_is(keys: int) -> None:
    """Of one length for both sequences, and of two."""
    part, samples = attention(dropout=0.3), 20_000
    x, source = features(1, 3), features(1, keys, seed=1)
    seen = view(3, keys, causal=True, present=None, like=x)
    expected = part.eval()(x, source, source, seen)
    many = source.expand(samples, -1, -1)
    found = part.train()(x.expand(samples, -1, -1), many, many, seen)
    error = found.std(dim=0) / math.sqrt(samples)
    assert (error > 0).all()
    assert ((found.mean(dim=0) - expected[0]).abs() < 6 * error).all()


def test_the_gradient_is_that_of_finite_differences() -> None:
    part = attention(width=4)
    present = torch.tensor([[False, True, True]])
    seen = view(2, 3, causal=True, present=present, like=torch.zeros(()))
    x, source = features(1, 2, 4).requires_grad_(), features(1, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: part(a, b, b, seen), (x, source))


def test_the_first_weights_are_those_of_one_packed_matrix() -> None:
    torch.manual_seed(0)
    part = Attention(30, 5)
    bound = math.sqrt(6 / (30 + 90))
    for linear in (part.query, part.key, part.value):
        assert 0.95 * bound < linear.weight.abs().max() <= bound
    assert part.output.weight.abs().max() > 1.3 * bound
    assert not any(linear.bias.any() for linear in (part.query, part.key, part.value, part.output))


@pytest.mark.parametrize("heads", [0, 4])
def test_heads_have_to_divide_the_width(heads: int) -> None:
    with pytest.raises(ValueError, match=f"{heads} heads do not divide a width of 6"):
        Attention(6, heads)
