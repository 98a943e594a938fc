"""Set filters and positional factors against the same written out with loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equipoise.nn import SetFilter, SinusoidalPositions
from equipoise.nn.positional_kernels import (
    AsymmetricProduct,
    Lookup,
    PositionalKernel,
    SymmetricProduct,
    positional_kernel,
)

HEADS, WIDTH = 2, 4
TOTAL = HEADS * WIDTH
table = SinusoidalPositions(TOTAL).double().at
lengths = st.tuples(st.integers(1, 6), st.integers(0, 5))
"""The number of queries, and of keys before them."""


def kernel_named(name: str, radius: int = 2) -> PositionalKernel:
    torch.manual_seed(0)
    kernel = positional_kernel(name, TOTAL, HEADS, radius=radius, content_bias=True)
    for parameter in kernel.parameters():
        torch.nn.init.normal_(parameter)
    return kernel.double()


def queries_of(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, HEADS, number, WIDTH, dtype=torch.float64, generator=generator)


@given(
    lengths=lengths,
    causal=st.booleans(),
    window=st.none() | st.integers(1, 4),
    hidden=st.none() | st.integers(0, 3),
)
def test_a_query_sees_what_the_filter_says(
    lengths: tuple[int, int], causal: bool, window: int | None, hidden: int | None
) -> None:
    queries, memory = lengths
    keys = queries + memory
    present = None
    if hidden is not None:
        present = torch.arange(keys) >= torch.tensor([[0], [hidden]])
    view = SetFilter(queries, keys, causal, window, present)
    visible = torch.ones(2, 1, queries, keys, dtype=torch.bool)
    if view.visible is not None:
        visible = visible & view.visible
    for sample in range(2):
        for q in range(queries):
            for k in range(keys):
                distance = memory + q - k
                assert view.distance[q, k] == distance
                seen = distance >= 0 or not (causal or window is not None)
                seen &= window is None or distance < window
                seen &= present is None or bool(present[sample, k])
                assert visible[sample, 0, q, k] == seen
    alone = causal and window is None and hidden is None and not memory
    assert view.is_triangle == alone


def rows_by_loop(kernel: PositionalKernel, place: int) -> Tensor:
    """t_place W_T in heads, (H, d)."""
    return kernel.position(table(torch.tensor([place])))[0].view(HEADS, WIDTH)


def looped(kernel: PositionalKernel, query: Tensor, view: SetFilter) -> Tensor:
    result = torch.zeros(2, HEADS, view.queries, view.keys, dtype=torch.float64)
    for i in range(view.queries):
        place = view.keys - view.queries + i
        for k in range(view.keys):
            asking = query[:, :, i]
            if isinstance(kernel, Lookup):
                clipped = max(-kernel.radius, min(kernel.radius, place - k))
                row = kernel.vectors[clipped + kernel.radius]
            elif isinstance(kernel, AsymmetricProduct):
                asking = asking + kernel.position_bias
                row = rows_by_loop(kernel, place - k)
            else:
                asking, row = rows_by_loop(kernel, place), rows_by_loop(kernel, k)
            result[:, :, i, k] = (asking * row).sum(-1) / math.sqrt(WIDTH)
    return result


@pytest.mark.parametrize("name", ["lookup", "product", "symmetric_product"])
@settings(max_examples=30, deadline=None)
@given(lengths=lengths, causal=st.booleans(), radius=st.integers(1, 4))
def test_the_factor_is_the_formula(
    name: str, lengths: tuple[int, int], causal: bool, radius: int
) -> None:
    view = SetFilter(lengths[0], sum(lengths), causal)
    kernel, query = kernel_named(name, radius), queries_of(lengths[0])
    factor = kernel.log_factor(query, view, kernel.rows(table, view))
    seen = view.distance >= 0 if causal else torch.ones_like(view.distance, dtype=torch.bool)
    expected = looped(kernel, query, view)
    torch.testing.assert_close(factor.expand_as(expected)[..., seen], expected[..., seen])


@pytest.mark.parametrize("name", ["none", "direct_sum"])
def test_without_a_factor_there_is_none(name: str) -> None:
    kernel, view = kernel_named(name), SetFilter(3, 3)
    assert kernel.log_factor(queries_of(3), view, kernel.rows(table, view)) is None
    assert kernel.profile(table, 4) is None
    assert torch.equal(kernel.content_query(queries_of(3)), queries_of(3))


def test_only_the_asymmetric_product_has_a_bias_on_the_content() -> None:
    query = queries_of(3)
    kernel = kernel_named("product")
    difference = kernel.content_query(query) - query
    torch.testing.assert_close(difference, kernel.content_bias[:, None].expand_as(query))
    without = AsymmetricProduct(TOTAL, HEADS, content_bias=False)
    assert without.content_bias is None
    assert torch.equal(without.content_query(query), query)


def test_profiles_are_factors_without_the_content() -> None:
    view = SetFilter(5, 5, causal=True)
    for name in ("product", "symmetric_product"):
        kernel = kernel_named(name)
        factor = kernel.log_factor(torch.zeros_like(queries_of(5)), view, kernel.rows(table, view))
        last = factor.expand(2, HEADS, 5, 5)[0, :, -1].flip(-1)
        torch.testing.assert_close(kernel.profile(table, 5), last)
    assert kernel_named("lookup").profile(table, 5) is None


@pytest.mark.parametrize("name", ["lookup", "product", "symmetric_product"])
def test_derivatives_are_those_of_finite_differences(name: str) -> None:
    kernel, view = kernel_named(name, radius=1), SetFilter(2, 3)
    parameters = {n: p.detach() for n, p in kernel.named_parameters() if n != "content_bias"}

    def factor(query: Tensor, *values: Tensor) -> Tensor:
        module = Factor(kernel, view)
        named = {f"kernel.{n}": v for n, v in zip(parameters, values, strict=True)}
        return torch.func.functional_call(module, named, (query,))

    inputs = [queries_of(2), *parameters.values()]
    assert torch.autograd.gradcheck(factor, [part.requires_grad_() for part in inputs])


class Factor(torch.nn.Module):
    """The log factor as a module's forward, so that its parameters can be replaced."""

    def __init__(self, kernel: PositionalKernel, view: SetFilter) -> None:
        super().__init__()
        self.kernel = kernel
        self.view = view

    def forward(self, query: Tensor) -> Tensor:
        return self.kernel.log_factor(query, self.view, self.kernel.rows(table, self.view))


def test_the_symmetric_product_is_symmetric() -> None:
    view = SetFilter(6, 6)
    kernel = kernel_named("symmetric_product")
    assert isinstance(kernel, SymmetricProduct)
    factor = kernel.log_factor(queries_of(6), view, kernel.rows(table, view))
    torch.testing.assert_close(factor, factor.transpose(-1, -2))
