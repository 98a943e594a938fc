"""The kernel transformer as a language model and as a translator, with every kind of attention."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from equipoise.models import KernelTransformer
from equipoise.nn import AttentionForm
from equipoise.nn.content_kernels import ContentKernelName
from equipoise.nn.positional_kernels import PositionsName

VOCABULARY, WIDTH, HEADS, LAYERS = 20, 16, 2, 2
KERNELS = get_args(ContentKernelName)
POSITIONS = get_args(PositionsName)
EVERY_FORM = pytest.mark.parametrize(("kernel", "positions"), list(product(KERNELS, POSITIONS)))
BY_DISTANCE = ("none", "lookup", "product")
"""Positions that count from the query, so that a segment may begin anywhere in a text."""


def network(
    kernel: ContentKernelName = "exponential", positions: PositionsName = "product", **changes: Any
) -> KernelTransformer:
    """Without dropout, in float64."""
    choices = {
        name: changes.pop(name)
        for name in ("symmetric", "value_positions", "learned_width")
        if name in changes
    }
    form = AttentionForm(kernel=kernel, positions=positions, radius=3, features=12, **choices)
    torch.manual_seed(0)
    model = KernelTransformer(
        vocabulary=VOCABULARY, size="tiny", width=WIDTH, heads=HEADS, inner_width=24,
        layers=LAYERS, attention=form, **changes,
    )  # fmt: skip
    return model.double()


def translator(*form: Any, **changes: Any) -> KernelTransformer:
    return network(*form, encoder_layers=2, **changes)


def tokens(length: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (2, length), generator=generator)


def padded(length: int, padding: int = 2) -> tuple[Tensor, Tensor]:
    """Sources, of which the second is shorter."""
    present = torch.ones(2, length, dtype=torch.bool)
    present[1, length - padding :] = False
    return tokens(length, seed=1), present


@EVERY_FORM
def test_segments_with_a_memory_are_one_long_text(
    kernel: ContentKernelName, positions: PositionsName
) -> None:
    """The memory holds all of the text, so places that count from its beginning are the same."""
    model, text = network(kernel, positions, memory_length=20), tokens(12)
    whole = model(text).hidden
    first = model(text[:, :5])
    second = model(text[:, 5:], first.memory)
    joined = torch.cat((first.hidden, second.hidden), dim=1)
    torch.testing.assert_close(joined, whole, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("positions", BY_DISTANCE)
def test_a_memory_as_long_as_the_window_is_enough(positions: PositionsName) -> None:
    text = tokens(12)
    model = network(positions=positions, window=3, memory_length=2)
    whole, first = model(text).hidden, model(text[:, :7])
    assert first.memory[0].shape == (2, 2, WIDTH)
    second = model(text[:, 7:], first.memory).hidden
    torch.testing.assert_close(second, whole[:, 7:])


@EVERY_FORM
def test_token_by_token_is_all_at_once(kernel: ContentKernelName, positions: PositionsName) -> None:
    model, target = translator(kernel, positions, value_positions=True), tokens(9)
    source, present = padded(7)
    encoded = model.encode(source, present)
    at_once = model.decode(target, encoded, present)
    memory, steps = None, []
    for place in range(target.shape[1]):
        output = model.decode(target[:, place : place + 1], encoded, present, memory)
        memory = output.memory
        assert [part.shape for part in memory] == [(2, place + 1, WIDTH)] * LAYERS
        steps.append(output.hidden)
    torch.testing.assert_close(torch.cat(steps, 1), at_once.hidden, rtol=1e-8, atol=1e-8)


@EVERY_FORM
def test_neither_the_future_nor_padding_is_seen(
    kernel: ContentKernelName, positions: PositionsName
) -> None:
    model, target = translator(kernel, positions), tokens(9)
    source, present = padded(7)
    before = model.decode(target, model.encode(source, present), present).hidden
    other_source = torch.where(present, source, (source + 1) % VOCABULARY)
    other_target = target.clone()
    other_target[:, 6:] = (target[:, 6:] + 1) % VOCABULARY
    after = model.decode(other_target, model.encode(other_source, present), present).hidden
    torch.testing.assert_close(after[:, :6], before[:, :6], rtol=0, atol=1e-10)
    assert (after[:, 6:] != before[:, 6:]).any()


def test_the_source_matters() -> None:
    model, target = translator(), tokens(5)
    source, present = padded(7)
    before = model.decode(target, model.encode(source, present), present).hidden
    source[:, 0] = (source[:, 0] + 1) % VOCABULARY
    after = model.decode(target, model.encode(source, present), present).hidden
    assert (after != before).any(dim=-1).all()


@EVERY_FORM
def test_attention_maps_are_weights_by_name(
    kernel: ContentKernelName, positions: PositionsName
) -> None:
    model, target = translator(kernel, positions).eval(), tokens(4)
    source, present = padded(6)
    maps = model.attention_maps(target, source, present)
    shapes = {
        **{f"encoder {n}": (2, HEADS, 6, 6) for n in (1, 2)},
        **{f"decoder {n}": (2, HEADS, 4, 4) for n in (1, 2)},
        **{f"cross {n}": (2, HEADS, 4, 6) for n in (1, 2)},
    }
    assert {name: tuple(weights.shape) for name, weights in maps.items()} == shapes
    for name, weights in maps.items():
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        if not name.startswith("decoder"):
            assert not weights[1, :, :, 4:].any()
        else:
            assert not weights.triu(1).any()


def test_maps_are_those_of_the_forward() -> None:
    """The hidden state of one layer, made again from its map."""
    model = network(positions="none", norm="pre").eval()
    model.decoder.layers = model.decoder.layers[:1]
    given = tokens(5)
    layer, features = model.decoder.layers[0], model.embedding(given)
    before = layer.around_attention.before(features)
    values = layer.attention.smoothing.value(before).unflatten(-1, (HEADS, -1)).transpose(1, 2)
    smoothed = model.attention_maps(given)["decoder 1"] @ values
    features = features + layer.attention.output(smoothed.transpose(1, 2).flatten(2))
    fed = layer.narrow(torch.relu(layer.widen(layer.around_feed_forward.before(features))))
    torch.testing.assert_close(model.decoder.last(features + fed), model(given).hidden)


def test_a_language_model_has_maps_of_its_decoder_alone() -> None:
    maps = network(window=2).eval().attention_maps(tokens(5))
    assert list(maps) == ["decoder 1", "decoder 2"]
    assert not maps["decoder 1"].tril(-2).any()


@pytest.mark.parametrize("encoder_layers", [0, 2])
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_every_parameter_gets_a_gradient(
    encoder_layers: int, norm: str, positions: PositionsName
) -> None:
    model = network(
        "rbf", positions, encoder_layers=encoder_layers, norm=norm, learned_width=True, dropout=0.1
    )
    target = tokens(6)
    if encoder_layers:
        source, present = padded(7)
        hidden = model.decode(target, model.encode(source, present), present).hidden
    else:
        hidden = model(target).hidden
    model.token_losses(hidden, target).mean().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_profiles_are_of_factors_that_go_by_distance() -> None:
    for positions in POSITIONS:
        profiles = translator(positions=positions).kernel_profiles(5)
        if positions in ("product", "symmetric_product"):
            names = [f"{stack} {n}" for stack in ("encoder", "decoder") for n in (1, 2)]
            assert list(profiles) == names
            assert {tuple(profile.shape) for profile in profiles.values()} == {(HEADS, 5)}
        else:
            assert profiles == {}


def test_widths_are_told_where_they_are_learned() -> None:
    assert network().kernel_widths() == {}
    model = translator(learned_width=True)
    with torch.no_grad():
        model.decoder.layers[1].cross.smoothing.smoother.kernel.log_width.fill_(0.5)
    widths = model.kernel_widths()
    names = ["encoder 1", "encoder 2", "decoder 1", "cross 1", "decoder 2", "cross 2"]
    assert list(widths) == names
    expected = torch.full((HEADS,), 0.5, dtype=torch.float64).exp()
    torch.testing.assert_close(widths["cross 2"], expected)
    torch.testing.assert_close(widths["cross 1"], torch.ones_like(expected))


def test_as_many_encoder_layers_as_the_size_has() -> None:
    model = KernelTransformer(vocabulary=VOCABULARY, size="tiny", encoder_layers=None)
    assert model.encoder is not None
    assert len(model.encoder.layers) == model.size.encoder_layers == 2


def test_each_says_what_it_cannot_do() -> None:
    given, present = padded(5)
    with pytest.raises(ValueError, match="without encoder layers translates nothing"):
        network().encode(given, present)
    with pytest.raises(ValueError, match="with encoder layers continues no text"):
        translator()(given)
    with pytest.raises(ValueError, match="tokens must be whole numbers"):
        translator().encode(given.double(), present)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_length": -1}, "memory_length must be at least 0"),
        ({"window": 0}, "window at least 1"),
        ({"width": 15}, "2 heads do not divide|even width"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    shape = {"width": WIDTH, "heads": HEADS, "size": "tiny"}
    with pytest.raises(ValueError, match=message):
        KernelTransformer(vocabulary=VOCABULARY, **{**shape, **changes})
