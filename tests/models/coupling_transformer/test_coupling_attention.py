"""Attention weakened by distances: its values, its gradients, and what it does not see."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.coupling_transformer.layer import (
    BiasedAttention,
    DistanceAttention,
    attend,
    weights,
)

Parts = tuple[Tensor, Tensor, Tensor, Tensor]


def parts(
    batch: int = 2, heads: int = 2, queries: int = 3, keys: int = 4, width: int = 2, seed: int = 0
) -> Parts:
    """Query, key, value and bias, of which some keys of each sample are hidden, never all."""
    random = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    hidden = torch.rand(batch, 1, keys, generator=random) < 0.4
    hidden[..., 0] = False
    bias = drawn(batch, queries, keys).masked_fill(hidden, float("-inf"))
    found = (
        drawn(batch, heads, queries, width), drawn(batch, heads, keys, width),
        drawn(batch, heads, keys, width), bias,
    )  # fmt: skip
    for part in found:
        part.requires_grad_()
    return found


def fused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias[:, None])


NUMBER = st.integers(1, 5)


@given(batch=st.integers(1, 3), heads=NUMBER, queries=NUMBER, keys=NUMBER, width=NUMBER)
def test_it_is_torchs_attention_in_value_and_gradient(
    batch: int, heads: int, queries: int, keys: int, width: int
) -> None:
    ours, theirs = (parts(batch, heads, queries, keys, width) for _ in range(2))
    found, expected = BiasedAttention.apply(*ours), fused(*theirs)
    torch.testing.assert_close(found, expected)
    slope = torch.cos(torch.arange(found.numel(), dtype=found.dtype)).view_as(found)
    for tensor in (found, expected):
        tensor.backward(slope)
    for one, other in zip(ours, theirs, strict=True):
        assert one.grad is not None
        torch.testing.assert_close(one.grad, other.grad)


def finite(*given_parts: Tensor) -> tuple[Any, tuple[Tensor, ...]]:
    """The attention as a function of finite numbers alone: differences of infinities are none."""
    query, key, value, bias = given_parts
    hidden = bias.isinf()

    def attention(q: Tensor, k: Tensor, v: Tensor, b: Tensor) -> Tensor:
        out: Tensor = BiasedAttention.apply(q, k, v, b.masked_fill(hidden, float("-inf")))
        return out

    visible = bias.detach().masked_fill(hidden, 0.0).requires_grad_()
    return attention, (query, key, value, visible)


def test_gradients_are_those_of_finite_differences() -> None:
    assert torch.autograd.gradcheck(*finite(*parts()))


def test_gradients_of_gradients_are_those_of_finite_differences() -> None:
    assert torch.autograd.gradgradcheck(*finite(*parts()))


def test_what_the_backward_pass_reads_is_left_as_it_was() -> None:
    """It overwrites what it computes, and a graph may be walked twice."""
    given_parts = parts()
    out = BiasedAttention.apply(*given_parts)
    copies = [part.detach().clone() for part in given_parts]
    slope = torch.ones_like(out)
    first = torch.autograd.grad(out, given_parts, slope, retain_graph=True)
    second = torch.autograd.grad(out, given_parts, slope)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    for part, copy in zip(given_parts, copies, strict=True):
        assert torch.equal(part, copy)
    assert torch.equal(slope, torch.ones_like(slope))


def test_hidden_keys_say_nothing_and_learn_nothing() -> None:
    query, key, value, bias = parts(keys=6)
    hidden = bias[:, 0].isinf()
    assert hidden.any()
    out = BiasedAttention.apply(query, key, value, bias)
    out.square().sum().backward()
    for part in (query, key, value, bias):
        assert part.grad is not None
        assert part.grad.isfinite().all()
    for part in (key, value):
        assert part.grad is not None
        assert not part.grad.transpose(1, 2)[hidden].any()
    noisy = value.detach().clone()
    noisy.transpose(1, 2)[hidden] = 1e6
    torch.testing.assert_close(BiasedAttention.apply(query, key, noisy, bias), out)
    assert not weights(query[0], key[0], bias[0])[..., hidden[0]].any()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_both_ways_of_attending_are_one(dropout: float) -> None:
    """With gradients on a CPU ours, otherwise torch's; attention weights are dropped by torch's."""
    given_parts = parts()
    torch.manual_seed(0)
    with_gradients = attend(*given_parts, dropout)
    torch.manual_seed(0)
    with torch.no_grad():
        without = attend(*given_parts, dropout)
    torch.testing.assert_close(with_gradients, without)
    assert torch.allclose(with_gradients, fused(*given_parts)) == (dropout == 0)


def attention(**changes: Any) -> DistanceAttention:
    """With gammas and biases that are not the first ones."""
    torch.manual_seed(0)
    given_sizes = {"width": 6, "heads": 2, "dropout": 0.0, "weight_norm": False, **changes}
    part = DistanceAttention(**given_sizes).double()
    part.gamma.data = torch.rand(4, 4, dtype=torch.float64)
    for name, parameter in part.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return part


def nodes(counts: tuple[int, ...], batch: int = 2, width: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """States, squared distances and which nodes are there."""
    random, total = torch.Generator().manual_seed(0), sum(counts)
    x = torch.randn(batch, total, width, generator=random, dtype=torch.float64)
    distances = torch.rand(batch, total, total, generator=random, dtype=torch.float64)
    present = torch.rand(batch, total, generator=random) < 0.7
    present[:, 0] = True
    return x, distances + distances.mT, present


@pytest.mark.parametrize("counts", [(2, 3, 1, 2), (2, 3, 1), (1, 1, 1, 1)])
def test_the_bias_is_the_gamma_of_both_kinds_times_the_distance(counts: tuple[int, ...]) -> None:
    part = attention()
    _, distances, present = nodes(counts)
    bias = part.bias(distances, present, counts)
    kinds = [kind for kind, count in enumerate(counts) for _ in range(count)]
    for b in range(2):
        for i, of_query in enumerate(kinds):
            for j, of_key in enumerate(kinds):
                expected = -part.gamma[of_query, of_key] * distances[b, i, j]
                if not present[b, j]:
                    expected = torch.tensor(-math.inf, dtype=torch.float64)
                torch.testing.assert_close(bias[b, i, j], expected)


@given(heads=st.sampled_from([1, 2, 3]), weight_norm=st.booleans())
def test_it_is_the_attention_written_out(heads: int, weight_norm: bool) -> None:
    part, counts = attention(heads=heads, weight_norm=weight_norm), (2, 2, 1)
    x, distances, present = nodes(counts)
    bias = part.bias(distances, present, counts)
    packed, width = part.value_query_key(x), 6 // heads
    merged = torch.zeros_like(x)
    for head in range(heads):
        start = 3 * width * head
        v, q, k = (packed[..., start + n * width : start + (n + 1) * width] for n in range(3))
        mixture = (q @ k.mT / width**0.5 + bias).softmax(dim=-1)
        merged[..., head * width : (head + 1) * width] = mixture @ v
    expected = part.output(torch.where(merged > 0, merged, 0.01 * merged))
    found = part(x, bias)
    torch.testing.assert_close(found, expected)
    rows = slice(1, 3)
    torch.testing.assert_close(part(x, bias, rows), found[:, rows])


def test_nothing_comes_from_nodes_that_are_not_there() -> None:
    part, counts = attention(), (2, 2, 1)
    x, distances, present = nodes(counts)
    x.requires_grad_()
    bias = part.bias(distances, present, counts)
    (slope,) = torch.autograd.grad(part(x, bias)[present].square().sum(), x, retain_graph=True)
    assert not slope[~present].any()
    assert slope[present].any()
    part(x, bias).square().sum().backward()
    for parameter in part.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_gradients_of_the_whole_are_those_of_finite_differences() -> None:
    part, counts = attention(), (1, 2)
    x, distances, present = nodes(counts, batch=1)
    fixed = part.bias(distances, present, counts).detach()
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda state: part(state, fixed), (x,))
    assert torch.autograd.gradgradcheck(lambda state: part(state, fixed), (x,))


def test_dropout_is_of_the_weights_and_in_training_alone() -> None:
    part, counts = attention(dropout=0.5), (2, 3)
    x, distances, present = nodes(counts)
    bias = part.bias(distances, present, counts)
    assert not torch.equal(part.train()(x, bias), part(x, bias))
    assert torch.equal(part.eval()(x, bias), part(x, bias))
    torch.testing.assert_close(part(x, bias), attention()(x, bias))


def test_autocast_attends_in_half_precision_to_the_same() -> None:
    part, counts = attention().float(), (2, 3)
    x, distances, present = nodes(counts)
    bias = part.bias(distances.float(), present, counts)
    whole = part(x.float(), bias)
    with torch.autocast("cpu", torch.bfloat16):
        half = part(x.float(), bias)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), whole, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("heads", [0, 4])
def test_heads_have_to_divide_the_width(heads: int) -> None:
    with pytest.raises(ValueError, match=f"{heads} heads do not divide a width of 6"):
        attention(heads=heads)
