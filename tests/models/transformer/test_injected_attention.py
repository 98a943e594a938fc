"""Kernel attention inside the equilibrium transformer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import Anderson, Equilibrium, Phantom
from equipoise.models import DEQTransformer
from equipoise.models.transformer.injected_attention import (
    PUBLISHED,
    InjectedKernelAttention,
    is_published,
)
from equipoise.nn import AttentionForm, RelativeAttention, SinusoidalPositions

WIDTH, HEADS, LENGTH, MEMORY = 8, 2, 5, 4
FORMS = [
    AttentionForm(kernel="rbf"),
    AttentionForm(kernel="rbf", learned_width=True, positions="none"),
    AttentionForm(positions="direct_sum", value_positions=True),
    AttentionForm(positions="lookup", radius=2),
    AttentionForm(positions="symmetric_product", symmetric=True),
    AttentionForm(kernel="elu", positions="none"),
    AttentionForm(kernel="polynomial", positions="direct_sum", symmetric=True),
]


def inputs(parts: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features and injection of a segment, and of a memory."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(LENGTH, WIDTH), (LENGTH, parts * WIDTH), (MEMORY, WIDTH), (MEMORY, parts * WIDTH)]
    x, u, m, v = (
        torch.randn(3, *shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    return x, u, m, v


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("weight_norm", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
def test_the_published_form_is_the_published_attention(
    window: int | None, weight_norm: bool, dropout: bool
) -> None:
    published = RelativeAttention(WIDTH, HEADS, weight_norm=weight_norm).double()
    ours = InjectedKernelAttention(PUBLISHED, WIDTH, HEADS, weight_norm=weight_norm).double()
    ours.query_key_value.load_state_dict(published.query_key_value.state_dict())
    ours.output.load_state_dict(published.output.state_dict())
    positional = dict(ours.smoother.positional.named_parameters())
    with torch.no_grad():
        rows = published.position
        positional["position.weight"].copy_(rows.weight() if weight_norm else rows.weight)
        positional["content_bias"].copy_(published.content_bias)
        positional["position_bias"].copy_(published.position_bias)
    x, u, m, v = inputs(3)
    rows = SinusoidalPositions(WIDTH).double()(MEMORY + LENGTH)
    dropped = (torch.rand(3, HEADS, LENGTH, MEMORY + LENGTH) > 0.3).double() if dropout else None
    results = [
        module(x, u, *module.remember(m, v), module.scene(rows, LENGTH, window), dropped)
        for module in (published, ours)
    ]
    torch.testing.assert_close(*results, rtol=0, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
def test_a_memory_is_the_same_as_a_longer_segment(form: AttentionForm) -> None:
    attention = InjectedKernelAttention(form, WIDTH, HEADS).double()
    x, u, m, v = inputs(attention.parts)
    rows = SinusoidalPositions(WIDTH).double()(MEMORY + LENGTH)
    behind = attention(x, u, *attention.remember(m, v), attention.scene(rows, LENGTH))
    nothing = attention.remember(m[:, :0], v[:, :0])
    features, injection = torch.cat((m, x), dim=1), torch.cat((v, u), dim=1)
    whole = attention(features, injection, *nothing, attention.scene(rows, MEMORY + LENGTH))
    torch.testing.assert_close(whole[:, MEMORY:], behind, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_an_equilibrium_of_every_form_is_found_and_trained(form: AttentionForm) -> None:
    torch.manual_seed(0)
    layer = Equilibrium(Anderson(max_steps=40, tol=1e-3), Phantom())
    network = DEQTransformer(
        layer, vocabulary=30, memory_length=8, size="tiny", attention=form, dropout=0.1,
        attention_dropout=0.1 if form.kernel == "rbf" else 0.0,
    )  # fmt: skip
    tokens = torch.randint(0, 30, (2, 9))
    output = network(tokens, network(tokens).memory)
    network.token_losses(output.hidden, tokens).mean().backward()
    assert layer.report is not None
    assert layer.report.residual.max() < 0.05
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_only_settings_in_use_make_another_form() -> None:
    assert is_published(AttentionForm(radius=3, features=8))
    assert not is_published(AttentionForm(kernel="rbf"))
    assert not is_published(AttentionForm(symmetric=True))
