"""Kernels on the content against their formulas; random features against what they estimate."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from equipoise.nn.content_kernels import (
    Elu,
    Exponential,
    Linear,
    Polynomial,
    RadialBasis,
    RandomFeatures,
    aligned,
    orthogonal_directions,
)

HEADS, WIDTH = 2, 4
Pair = tuple[Tensor, Tensor]


def drawn(queries: int = 3, keys: int = 5, width: int = WIDTH, scale: float = 1.0) -> Pair:
    generator = torch.Generator().manual_seed(0)
    shapes = (2, HEADS, queries, width), (2, HEADS, keys, width)
    query, key = (torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes)
    return scale * query, scale * key


def widened(kernel: Exponential) -> Exponential:
    """With a width of its own for each head."""
    with torch.no_grad():
        kernel.log_width.copy_(torch.tensor([0.4, -0.7]))
    return kernel.double()


def logits(kernel: Exponential, query: Tensor, key: Tensor) -> Tensor:
    query, key = kernel.factors(query, key)
    return query @ key.transpose(-1, -2)


def distances(query: Tensor, key: Tensor) -> Tensor:
    """|q - k|^2 by the difference of each pair."""
    return (query.unsqueeze(-2) - key.unsqueeze(-3)).square().sum(-1)


@pytest.mark.parametrize("learned_width", [False, True])
def test_rbf_is_the_distance_up_to_what_cancels(learned_width: bool) -> None:
    kernel, (query, key) = RadialBasis(HEADS, learned_width=learned_width), drawn()
    squared_width = 1.0
    if learned_width:
        widened(kernel)
        squared_width = (2 * kernel.log_width).exp().view(-1, 1, 1)
    expected = torch.softmax(-distances(query, key) / squared_width, -1)
    torch.testing.assert_close(torch.softmax(logits(kernel, query, key), -1), expected)


def test_rbf_keeps_the_length_of_keys_in_half_precision() -> None:
    """|k|^2 is about 250 here, which bfloat16 alone would round by up to 1."""
    kernel, (query, key) = RadialBasis(HEADS, learned_width=False), drawn(width=64, scale=2.0)
    query, key = query.bfloat16(), key.bfloat16()
    factors = [part.double() for part in kernel.factors(query, key)]
    found = factors[0] @ factors[1].transpose(-1, -2)
    exact = logits(kernel, query.double(), key.double())
    assert (found - exact).abs().max() < 0.01


@pytest.mark.parametrize(
    ("dtype", "width", "expected"),
    [
        (torch.float64, 66, 66),
        (torch.float32, 66, 68),
        (torch.bfloat16, 66, 72),
        (torch.float32, 64, 64),
    ],
)
def test_widths_are_multiples_of_16_bytes(dtype: torch.dtype, width: int, expected: int) -> None:
    assert aligned(width, dtype) == expected
    kernel = RadialBasis(HEADS, learned_width=False)
    query, key = (part.to(dtype) for part in drawn(width=width))
    for factor in kernel.factors(query, key):
        assert factor.shape[-1] == aligned(width + 2, dtype)


def test_the_exponential_kernel_divides_by_its_squared_width() -> None:
    query, key = drawn()
    plain = query @ key.transpose(-1, -2)
    torch.testing.assert_close(logits(Exponential(HEADS, learned_width=False), query, key), plain)
    found = logits(widened(Exponential(HEADS, learned_width=True)), query, key)
    torch.testing.assert_close(found[:, 0], plain[:, 0] * torch.tensor(-0.8).double().exp())
    torch.testing.assert_close(found[:, 1], plain[:, 1] * torch.tensor(1.4).double().exp())


KERNELS: dict[str, Linear] = {
    "linear": Linear(),
    "polynomial": Polynomial(),
    "elu": Elu(),
    "random_features": RandomFeatures(WIDTH, 6).double(),
}
EVERY = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


@EVERY
def test_the_kernel_is_the_product_of_its_features(kernel: Linear) -> None:
    query, key = drawn()
    features, log_scale = kernel.of_keys(key)
    assert features.shape == (2, HEADS, 5, kernel.count(WIDTH))
    product, its_scale = kernel.product(query, key)
    torch.testing.assert_close(product, kernel.of_queries(query) @ features.transpose(-1, -2))
    assert (log_scale is None) == (its_scale is None)


@EVERY
def test_the_features_of_a_key_are_its_own(kernel: Linear) -> None:
    _, key = drawn()
    changed = key.clone()
    changed[:, :, 2] *= 100
    others = [0, 1, 3, 4]
    for before, after in zip(kernel.of_keys(key), kernel.of_keys(changed), strict=True):
        if before is not None:
            assert torch.equal(before[:, :, others], after[:, :, others])


def test_linear_and_polynomial_are_powers_of_the_product() -> None:
    query, key = drawn()
    product = torch.einsum("bhqd,bhkd->bhqk", query, key)
    torch.testing.assert_close(Linear().product(query, key).features, product)
    torch.testing.assert_close(Polynomial().product(query, key).features, product**2)


def test_elu_is_the_published_map_and_above_0_where_that_rounds_to_0() -> None:
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(Elu().of_queries(x), functional.elu(x) + 1)
    below = torch.tensor([-40.0], requires_grad=True)
    assert functional.elu(below) + 1 == 0
    value = Elu().of_queries(below)
    value.backward()
    torch.testing.assert_close(value, torch.exp(below))
    torch.testing.assert_close(below.grad, torch.exp(below.detach()))


def test_more_random_features_estimate_the_exponential_kernel_better() -> None:
    query, key = drawn(20, 20, scale=0.5)
    exact = torch.softmax(query @ key.transpose(-1, -2) / WIDTH**0.5, -1)
    errors = []
    for features in (16, 256, 4096, 65536):
        torch.manual_seed(0)
        product, log_scale = RandomFeatures(WIDTH, features).double().product(query, key)
        values = product * log_scale.exp().unsqueeze(-2)
        errors.append(float((values / values.sum(-1, keepdim=True) - exact).abs().mean()))
    # The error goes with the root of the number, a factor of 4 each time.
    assert all(later < 0.5 * earlier for earlier, later in pairwise(errors))
    assert errors[-1] < 0.03 * errors[0]


@given(width=st.integers(1, 9), count=st.integers(1, 30), seed=st.integers(0, 99))
def test_directions_are_orthogonal_in_blocks(width: int, count: int, seed: int) -> None:
    torch.manual_seed(seed)
    directions = orthogonal_directions(width, count).double()
    assert directions.shape == (count, width)
    for block in functional.normalize(directions).split(width):
        identity = torch.eye(len(block), dtype=torch.float64)
        torch.testing.assert_close(block @ block.T, identity, rtol=0, atol=1e-5)
