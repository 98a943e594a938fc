"""What holds for every attention that can be composed: kernels x positions x filters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from equipoise.nn import AttentionForm, KernelAttention, SetFilter, SinusoidalPositions
from equipoise.nn.content_kernels import ContentKernelName, Linear
from equipoise.nn.linear_attention import smooth_causally
from equipoise.nn.positional_kernels import PositionsName

WIDTH, HEADS = 8, 2
KERNELS: tuple[ContentKernelName, ...] = get_args(ContentKernelName)
POSITIONS: tuple[PositionsName, ...] = get_args(PositionsName)
POSITIVE = tuple(kernel for kernel in KERNELS if kernel != "linear")
OF_FEATURES = ("linear", "polynomial", "elu", "random_features")
EVERY_FORM = pytest.mark.parametrize(("kernel", "positions"), list(product(KERNELS, POSITIONS)))
EVERY_POSITIVE = pytest.mark.parametrize(
    ("kernel", "positions"), list(product(POSITIVE, POSITIONS))
)
table = SinusoidalPositions(WIDTH).double().at


def attention(kernel: ContentKernelName = "exponential", **choices: Any) -> KernelAttention:
    choices = {"positions": "none", "radius": 2, "features": 12} | choices
    torch.manual_seed(0)
    module = KernelAttention(AttentionForm(kernel=kernel, **choices), WIDTH, HEADS).double()
    for name, parameter in module.named_parameters():
        torch.nn.init.normal_(parameter, std=0.5 if name.endswith("weight") else 0.3)
    return module


def drawn(length: int, batch: int = 2, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, WIDTH, dtype=torch.float64, generator=generator)


def smoothed_by_weights(
    module: KernelAttention, queries: Tensor, keys: Tensor, view: SetFilter
) -> Tensor:
    """The definition: explicit weights times values."""
    values = module.projected(queries, keys, view, table)[2]
    smoothed = module.weights(queries, keys, view, table) @ values
    return smoothed.transpose(1, 2).flatten(2)


def filters(queries: int, keys: int) -> Iterator[SetFilter]:
    present = torch.arange(keys) >= torch.tensor([[0], [2]])
    for causal, window, hidden in product((False, True), (None, 3), (None, present)):
        yield SetFilter(queries, keys, causal, window, hidden)


@EVERY_FORM
@pytest.mark.parametrize("symmetric", [False, True])
def test_fused_and_linear_time_paths_are_the_explicit_weights(
    kernel: ContentKernelName, positions: PositionsName, symmetric: bool
) -> None:
    module = attention(kernel, positions=positions, symmetric=symmetric, value_positions=symmetric)
    features = drawn(19)
    for memory in (0, 2):
        queries = features[:, memory:]
        for view in filters(19 - memory, 19):
            expected = smoothed_by_weights(module, queries, features, view)
            found = module(queries, features, view, table)
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kernel", OF_FEATURES)
@settings(max_examples=20, deadline=None)
@given(
    queries=st.sampled_from([30, 127, 128, 129, 300]),
    memory=st.sampled_from([0, 40, 128, 131]),
    causal=st.booleans(),
    padding=st.integers(0, 20),
    symmetric=st.booleans(),
)
def test_linear_time_is_exact(
    kernel: ContentKernelName,
    queries: int,
    memory: int,
    causal: bool,
    padding: int,
    symmetric: bool,
) -> None:
    module, keys = attention(kernel, symmetric=symmetric), drawn(queries + memory, batch=1)
    present = (torch.arange(queries + memory) >= padding)[None] if padding else None
    view = SetFilter(queries, queries + memory, causal, None, present)
    smoother = module.smoother
    assert isinstance(smoother.kernel, Linear)
    assert smoother._runs_linearly(smoother.kernel, keys.view(1, -1, HEADS, 4).mT, view)
    queries_seen = keys[:, memory:]
    found = module(queries_seen, keys, view)
    expected = smoothed_by_weights(module, queries_seen, keys, view)
    # Rounding grows where signed weights cancel in their sum, which is 1.
    growth = float(module.weights(queries_seen, keys, view).detach().abs().sum(-1).max())
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8 * max(1.0, 1e-4 * growth**2))


@pytest.mark.parametrize(
    ("queries", "choices", "expected"),
    [
        (40, {}, True),
        (40, {"kernel": "polynomial"}, True),  # 16 features
        (10, {"kernel": "polynomial"}, False),
        (1, {}, False),
        (40, {"positions": "direct_sum"}, True),
        (40, {"positions": "lookup"}, False),
        (40, {"window": 5}, False),
    ],
)
def test_linear_time_runs_where_it_is_exact_and_cheaper(
    monkeypatch: pytest.MonkeyPatch, queries: int, choices: dict[str, Any], expected: bool
) -> None:
    choices = {"kernel": "elu"} | choices
    view = SetFilter(queries, 40, causal=True, window=choices.pop("window", None))
    module, keys, calls = attention(**choices), drawn(40), []

    def counted(*given_parts: Any) -> Tensor:
        calls.append(1)
        return smooth_causally(*given_parts)

    monkeypatch.setattr("equipoise.nn.kernel_attention.smooth_causally", counted)
    module(keys[:, 40 - queries :], keys, view, table)
    assert bool(calls) == expected


@EVERY_FORM
def test_padding_has_no_influence(kernel: ContentKernelName, positions: PositionsName) -> None:
    module, keys = attention(kernel, positions=positions), drawn(16)
    present = torch.ones(2, 16, dtype=torch.bool)
    present[1, 11:] = False
    view = SetFilter(16, 16, present=present)
    before = module(keys, keys, view, table)
    changed = keys.clone()
    changed[1, 11:] = 40 * drawn(5, batch=1, seed=2)[0]
    after = module(keys, changed, view, table)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)
    assert not module.weights(keys, changed, view, table)[1, :, :, 11:].any()


@settings(max_examples=80, deadline=None)
@given(
    kernel=st.sampled_from(KERNELS),
    positions=st.sampled_from(POSITIONS),
    symmetric=st.booleans(),
    memory=st.integers(0, 5),
    window=st.none() | st.integers(1, 6),
    length=st.integers(2, 40),
    changed=st.integers(1, 39),
)
def test_the_future_is_not_seen(
    kernel: ContentKernelName,
    positions: PositionsName,
    symmetric: bool,
    memory: int,
    window: int | None,
    length: int,
    changed: int,
) -> None:
    assume(changed < length)
    module = attention(kernel, positions=positions, symmetric=symmetric)
    keys = drawn(memory + length)
    view = SetFilter(length, memory + length, causal=True, window=window)
    before = module(keys[:, memory:], keys, view, table)
    weights = module.weights(keys[:, memory:], keys, view, table)
    keys[:, memory + changed :] = 20 * drawn(length - changed, seed=3)
    after = module(keys[:, memory:], keys, view, table)
    torch.testing.assert_close(after[:, :changed], before[:, :changed], rtol=0, atol=1e-12)
    assert not weights[..., view.distance < 0].any()
    if window is not None:
        assert not weights[..., view.distance >= window].any()
        first_seen = memory + length - window  # of the last query
        keys[:, : max(first_seen, 0)] = 20 * drawn(max(first_seen, 0), seed=4)
        last = module(keys[:, memory:], keys, view, table)[:, -1]
        torch.testing.assert_close(last, after[:, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("positions", ["none", "direct_sum", "symmetric_product"])
def test_symmetric_kernels_are_symmetric(
    kernel: ContentKernelName, positions: PositionsName
) -> None:
    """w_ij = k_ij / z_i with k_ij = k_ji if the product around any three is the same both ways."""
    features, view = drawn(6), SetFilter(6, 6)
    for symmetric in (True, False):
        module = attention(kernel, positions=positions, symmetric=symmetric)
        w = module.weights(features, features, view, table)
        one_way = torch.einsum("bhij,bhjk,bhki->bhijk", w, w, w)
        other_way = torch.einsum("bhik,bhkj,bhji->bhijk", w, w, w)
        scale = one_way.abs().max()
        assert ((one_way - other_way).abs().max() < 1e-12 * scale) == symmetric


def test_symmetric_kernels_have_no_map_of_their_own_for_keys() -> None:
    assert attention(symmetric=True).key is None
    names = dict(attention(symmetric=True).named_parameters())
    assert set(names) == {"query.weight", "value.weight"}


@pytest.mark.parametrize("learned_width", [False, True])
def test_rbf_is_the_naive_distance_form(learned_width: bool) -> None:
    module, keys = attention("rbf", learned_width=learned_width), drawn(7)
    query, key, _ = module.projected(keys, keys, SetFilter(7, 7), None)
    distance = (query.unsqueeze(-2) - key.unsqueeze(-3)).square().sum(-1)
    if learned_width:
        distance = distance / (2 * module.smoother.kernel.log_width).exp().view(-1, 1, 1)
    kernel = torch.exp(-distance / 2.0)
    expected = kernel / kernel.sum(-1, keepdim=True)
    torch.testing.assert_close(module.weights(keys, keys, SetFilter(7, 7)), expected)


GRADIENT_FORMS = [
    *(AttentionForm(kernel=k, positions=p) for k, p in product(KERNELS, POSITIONS)),
    *(AttentionForm(kernel=k, positions="none", symmetric=True) for k in KERNELS),
    *(
        AttentionForm(kernel=k, positions=p, learned_width=True, value_positions=True)
        for k, p in product(("exponential", "rbf"), POSITIONS)
    ),
]


@pytest.mark.parametrize("form", GRADIENT_FORMS, ids=lambda f: f"{f.kernel}-{f.positions}")
@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_those_of_finite_differences(form: AttentionForm, causal: bool) -> None:
    """Of the features and of every parameter, a learned width included."""
    choices = {**vars(form), "radius": 1, "features": 5}
    module = attention(**choices)
    names, values = zip(*module.named_parameters(), strict=True)
    assert ("smoother.kernel.log_width" in names) == form.learned_width
    length, memory = (8, 0) if form.kernel in ("elu", "linear") else (3, 1)
    view = SetFilter(length, length + memory, causal)

    def smoothed(features: Tensor, *parameters: Tensor) -> Tensor:
        given_parts = (features[:, memory:], features, view, table)
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(module, named, given_parts)

    leaves = [drawn(length + memory, batch=1), *(value.detach() for value in values)]
    inputs = [leaf.requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(smoothed, inputs, fast_mode=True)


@EVERY_POSITIVE
@pytest.mark.parametrize("causal", [False, True])
def test_large_logits_stay_finite_in_bfloat16(
    kernel: ContentKernelName, positions: PositionsName, causal: bool
) -> None:
    """2,048 tokens whose queries and keys are each 30 times normal ones, and so the logits 900."""
    module = attention(kernel, positions=positions).bfloat16()
    with torch.no_grad():
        module.query.weight.normal_(std=30 * WIDTH**-0.5)
        module.key.weight.normal_(std=30 * WIDTH**-0.5)
    features = drawn(2048, batch=1).bfloat16().requires_grad_()
    rows = SinusoidalPositions(WIDTH).bfloat16().at
    smoothed = module(features, features, SetFilter(2048, 2048, causal), rows)
    smoothed.square().sum().backward()
    assert torch.isfinite(smoothed).all()
    assert smoothed.any()
    leaves = {"features": features, **dict(module.named_parameters())}
    infinite = [name for name, leaf in leaves.items() if not torch.isfinite(leaf.grad).all()]
    assert infinite == []


@EVERY_POSITIVE
def test_it_runs_under_autocast(kernel: ContentKernelName, positions: PositionsName) -> None:
    module, keys = attention(kernel, positions=positions).float(), drawn(12).float()
    rows, view = SinusoidalPositions(WIDTH).at, SetFilter(12, 12, causal=True)
    expected = module(keys, keys, view, rows)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(keys, keys, view, rows)
    tolerance = 0.3 * expected.std().item()
    torch.testing.assert_close(found.float(), expected, rtol=0.2, atol=tolerance)


def test_dropped_weights_are_not_made_up_for() -> None:
    module, keys, view = attention(), drawn(5), SetFilter(5, 5, causal=True)
    query, key, value = module.projected(keys, keys, view, None)
    scene = module.smoother.scene(view, None)
    kept = torch.bernoulli(torch.full((2, HEADS, 5, 5), 0.5)).double()
    expected = (module.smoother.weights(query, key, scene) * kept) @ value
    torch.testing.assert_close(module.smoother(query, key, value, scene, kept), expected)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"kernel": "gauss"},
            "kernel is 'gauss'; choose linear, polynomial, exponential",
        ),
        ({"positions": "sum"}, "positions is 'sum'; choose none, direct_sum, lookup, product"),
        ({"kernel": "elu", "learned_width": True}, "learned_width is for .* exponential and rbf"),
        ({"radius": 0}, "radius and features must be at least 1, got 0 and 256"),
        ({"features": 0}, "radius and features must be at least 1, got 16 and 0"),
    ],
)
def test_choices_that_do_not_go_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentionForm(**choices)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide a width of 8"):
        KernelAttention(AttentionForm(), WIDTH, 3)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("value_positions", [False, True])
def test_positions_are_not_left_out_silently(
    positions: PositionsName, value_positions: bool
) -> None:
    form = AttentionForm(positions=positions, value_positions=value_positions)
    module, keys = attention(**vars(replace(form, radius=2))), drawn(4)
    if not value_positions and positions in ("none", "lookup"):
        assert module(keys, keys, SetFilter(4, 4)).shape == (2, 4, WIDTH)
        return
    for method in (module, module.weights):
        with pytest.raises(ValueError, match="need a table"):
            method(keys, keys, SetFilter(4, 4))
