"""MulT's encoders: positions, layers, stacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from equipoise.models.mult.attention import View, view
from equipoise.models.mult.encoder import (
    CrossmodalEncoder,
    Dropout,
    EncoderLayer,
    MemoryEncoder,
    embedded,
    sinusoids,
)

WIDTH, HEADS = 6, 2


def drawn(build: Callable[[], Any]) -> Any:
    """In float64, every parameter of it random, so that no bias is 0 and no norm plain."""
    part = build().double()
    generator = torch.Generator().manual_seed(0)
    for parameter in part.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = 0.3 * noise + (parameter.data if parameter.dim() > 1 else 0.5)
    return part


def features(batch: int, length: int, width: int = WIDTH, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, width, generator=generator, dtype=torch.float64)


def everything(queries: int, keys: int, *, causal: bool = True) -> View:
    return view(queries, keys, causal=causal, present=None, like=torch.zeros(()))


@pytest.mark.parametrize("width", [1, 2, 3, 6, 7, 30])
def test_positions_are_bounded_different_and_computed_in_float32(width: int) -> None:
    rows = sinusoids(50, width, torch.zeros((), dtype=torch.float64))
    assert rows.shape == (50, width)
    assert rows.dtype == torch.float64
    torch.testing.assert_close(rows, sinusoids(50, width, torch.zeros(())).double(), rtol=0, atol=0)
    half = width // 2
    torch.testing.assert_close(
        rows[:, :half].square() + rows[:, half : 2 * half].square(), torch.ones(50, half).double()
    )
    if width % 2:
        assert not rows[:, -1].any()
    if width > 1:
        assert torch.cdist(rows, rows).fill_diagonal_(1).min() > 1e-3


@given(length=st.integers(1, 6), width=st.integers(2, 7), data=st.data())
def test_a_step_has_the_position_of_its_place_unless_its_first_feature_is_zero(
    length: int, width: int, data: st.DataObject
) -> None:
    sequence = features(2, length, width)
    for step in data.draw(st.sets(st.integers(0, length - 1))):
        sequence[1, step, 0] = 0
    positions = embedded(sequence) - width**0.5 * sequence
    table = sinusoids(length, width, sequence)
    for b in range(2):
        for t in range(length):
            expected = table[t] if sequence[b, t, 0] != 0 else torch.zeros_like(table[t])
            torch.testing.assert_close(positions[b, t], expected)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_late_positions_keep_their_phase_in_half_precision(half: torch.dtype) -> None:
    """A half cannot tell 3000 from 3001, so the angles must not be computed in it."""
    rows = sinusoids(3001, 8, torch.zeros((), dtype=half))
    assert rows.dtype == half
    torch.testing.assert_close(rows.float(), sinusoids(3001, 8, torch.zeros(())), rtol=0, atol=5e-3)


def test_a_layer_normalises_the_source_as_the_sequence() -> None:
    layer = drawn(lambda: EncoderLayer(WIDTH, HEADS, Dropout()))
    x, source = features(2, 3), features(2, 5, seed=1)
    seen = everything(3, 5)
    attended = layer.attention(layer.norm(x), layer.norm(source), layer.norm(source), seen)
    h = x + attended
    expected = h + layer.narrow(layer.widen(layer.feed_forward_norm(h)).clamp(min=0))
    torch.testing.assert_close(layer(x, source, source, seen), expected)
    assert layer.source_norm is None


def test_a_source_of_another_width_has_its_own_norm() -> None:
    layer = drawn(lambda: EncoderLayer(WIDTH, HEADS, Dropout(), source_width=4))
    source = features(2, 5, 4, seed=1)
    assert layer.source_norm.normalized_shape == (4,)
    torch.testing.assert_close(layer.of_source(source), layer.source_norm(source))
    assert layer(features(2, 3), source, source, everything(3, 5)).shape == (2, 3, WIDTH)


@pytest.mark.parametrize("source_width", [None, WIDTH])
def test_attending_to_itself_is_attending_to_its_own_source(source_width: int | None) -> None:
    layer = drawn(lambda: EncoderLayer(WIDTH, HEADS, Dropout(), source_width=source_width))
    x, seen = features(2, 4), everything(4, 4)
    torch.testing.assert_close(layer.within(x, seen), layer(x, x, x, seen))
    last = layer.last(x, everything(1, 4, causal=False))
    torch.testing.assert_close(last, layer.within(x, seen)[:, -1:])


def test_the_gradient_of_a_layer_is_that_of_finite_differences() -> None:
    layer = drawn(lambda: EncoderLayer(4, 2, Dropout(), source_width=3))
    x, source = features(1, 2, 4).requires_grad_(), features(1, 3, 3, seed=1).requires_grad_()
    seen = everything(2, 3)
    assert torch.autograd.gradcheck(lambda a, b: layer(a, b, b, seen), (x, source))


def test_residual_dropout_is_of_what_both_sublayers_add() -> None:
    layer = drawn(lambda: EncoderLayer(WIDTH, HEADS, Dropout(residual=1.0)))
    x, source = features(2, 3), features(2, 5, seed=1)
    torch.testing.assert_close(layer(x, source, source, everything(3, 5)), x)


def test_inner_dropout_is_of_the_hidden_features_alone() -> None:
    layer = drawn(lambda: EncoderLayer(WIDTH, HEADS, Dropout(inner=1.0)))
    x, source, seen = features(2, 3), features(2, 5, seed=1), everything(3, 5)
    attended = layer.attention(layer.norm(x), layer.norm(source), layer.norm(source), seen)
    expected = x + attended + layer.narrow.bias
    torch.testing.assert_close(layer(x, source, source, seen), expected)


def sources_read(encoder: CrossmodalEncoder) -> list[tuple[Tensor, Tensor]]:
    """What each layer is given for keys and for values."""
    given_sources: list[tuple[Tensor, Tensor]] = []
    for layer in encoder.layers:
        layer.register_forward_pre_hook(lambda _, args: given_sources.append(args[1:3]))
    encoder(features(2, 3), features(2, 5, seed=1), everything(3, 5))
    return given_sources


def test_every_layer_reads_the_same_embedded_source() -> None:
    encoder = drawn(lambda: CrossmodalEncoder(WIDTH, WIDTH, HEADS, 3, Dropout()))
    for key, value in sources_read(encoder):
        assert key is value
        torch.testing.assert_close(key, embedded(features(2, 5, seed=1)))


def test_keys_and_values_have_dropouts_of_their_own() -> None:
    def build() -> CrossmodalEncoder:
        return CrossmodalEncoder(WIDTH, WIDTH, HEADS, 2, Dropout(embedding=0.5))

    first, second = sources_read(drawn(build).train())
    for key, value in (first, second):
        assert not torch.equal(key == 0, value == 0)
    assert first[0] is second[0]
    assert first[1] is second[1]
    for key, value in sources_read(drawn(build).eval()):
        assert key is value


def test_a_crossmodal_encoder_is_its_layers_and_a_norm() -> None:
    encoder = drawn(lambda: CrossmodalEncoder(WIDTH, 4, HEADS, 2, Dropout()))
    target, source, seen = features(2, 3), features(2, 5, 4, seed=1), everything(3, 5)
    x, offered = embedded(target), embedded(source)
    for layer in encoder.layers:
        x = layer(x, offered, offered, seen)
    torch.testing.assert_close(encoder(target, source, seen), encoder.last_norm(x))


@given(
    layers=st.integers(1, 4),
    length=st.integers(1, 6),
    causal=st.booleans(),
    padding=st.none() | st.lists(st.integers(0, 6), min_size=2, max_size=2),
)
def test_the_last_step_of_a_memory_encoder_is_that_of_all_steps(
    layers: int, length: int, causal: bool, padding: list[int] | None
) -> None:
    encoder = drawn(lambda: MemoryEncoder(WIDTH, HEADS, layers, Dropout()))
    sequence, present = features(2, length), None
    if padding is not None:
        present = torch.arange(length) >= torch.tensor(padding)[:, None]
    seen = view(length, length, causal=causal, present=present, like=sequence)
    of_last = view(1, length, causal=False, present=present, like=sequence)
    x = embedded(sequence)
    for layer in encoder.layers:
        x = layer.within(x, seen)
    torch.testing.assert_close(encoder(sequence, seen, of_last), encoder.last_norm(x)[:, -1])


@pytest.mark.parametrize("causal", [True, False])
def test_maps_are_the_weights_of_every_layer(causal: bool) -> None:
    crossmodal = drawn(lambda: CrossmodalEncoder(WIDTH, WIDTH, HEADS, 3, Dropout()))
    memory = drawn(lambda: MemoryEncoder(WIDTH, HEADS, 3, Dropout()))
    target, source = features(2, 4), features(2, 5, seed=1)
    seen, own = everything(4, 5, causal=causal), everything(4, 4, causal=causal)
    for encoder, maps in (
        (crossmodal, crossmodal.maps(target, source, seen)),
        (memory, memory.maps(target, own)),
    ):
        assert len(maps) == 3
        found = _weights_in_use(encoder, target, source, seen, own)
        for ours, used in zip(maps, found, strict=True):
            torch.testing.assert_close(ours, used)
            torch.testing.assert_close(ours.sum(dim=-1), torch.ones_like(ours[..., 0]))


def _weights_in_use(
    encoder: Any, target: Tensor, source: Tensor, seen: View, own: View
) -> list[Tensor]:
    """The weights of each layer for the sequence that reaches it."""
    x, offered, weights = embedded(target), embedded(source), []
    for layer in encoder.layers:
        if isinstance(encoder, MemoryEncoder):
            weights.append(layer.attention.weights(layer.norm(x), layer.norm(x), own))
            x = layer.within(x, own)
        else:
            weights.append(layer.attention.weights(layer.norm(x), layer.norm(offered), seen))
            x = layer(x, offered, offered, seen)
    return weights


def test_the_first_feed_forward_weights_are_the_published_ones() -> None:
    layer = EncoderLayer(30, 5, Dropout())
    assert layer.widen.weight.shape == (120, 30)
    for linear in (layer.widen, layer.narrow):
        assert isinstance(linear, nn.Linear)
        assert not linear.bias.any()
        bound = (6 / (30 + 120)) ** 0.5
        assert 0.95 * bound < linear.weight.abs().max() <= bound
