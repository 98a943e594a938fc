"""The explicit transformer: the equilibrium one's parameters, plain iteration, its memory."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from token_models import deq_transformer, seeded, tokens, transformer
from torch import Tensor

from equipoise.equilibrium import Unrolled
from equipoise.models import DEQTransformer, Transformer
from equipoise.models.transformer.transformer import Repetition


def test_it_is_the_equilibrium_transformer_unrolled() -> None:
    explicit = cast(Transformer, seeded(transformer, layers=3))
    implicit = cast(DEQTransformer, seeded(deq_transformer))
    implicit.equilibrium.gradient = Unrolled(steps=3)
    implicit.load_state_dict(explicit.network.state_dict(), strict=False)
    memory = explicit(tokens(seed=1)).memory
    ours, theirs = explicit(tokens(), memory), implicit(tokens(), memory)
    torch.testing.assert_close(ours.hidden, theirs.hidden)
    torch.testing.assert_close(ours.memory, theirs.memory)


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointed in (False, True):
        model = seeded(transformer, checkpointed=checkpointed)
        model.token_losses(model(tokens()).hidden, tokens()).mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_the_length_of_the_memory_can_be_changed() -> None:
    model = cast(Transformer, seeded(transformer, memory_length=4))
    assert model(tokens()).memory[0].shape == (2, 4, 16)
    model.memory_length = 20
    output = model(tokens())
    assert output.memory[0].shape == (2, 6, 16)
    assert model(tokens(), output.memory).memory[1].shape == (2, 12, 48)


def f(z: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(z * 0.7 + x)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_it_is_the_function_applied_over_and_over(checkpointed: bool) -> None:
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3).requires_grad_()
    z = Repetition(3, checkpointed)(f, torch.zeros_like(x), x)
    expected = f(f(f(torch.zeros_like(x), x), x), x)
    torch.testing.assert_close(z, expected, rtol=0, atol=0)
    ours, theirs = (torch.autograd.grad(y.sum(), x)[0] for y in (z, expected))
    torch.testing.assert_close(ours, theirs)


def test_checkpointing_evaluates_each_layer_again() -> None:
    calls = []

    def counted(z: Tensor, x: Tensor) -> Tensor:
        calls.append(1)
        return f(z, x)

    x = torch.zeros(1, 2, requires_grad=True)
    z = Repetition(4, checkpointed=True)(counted, torch.zeros(1, 2), x)
    assert len(calls) == 4
    z.sum().backward()
    assert len(calls) == 8


def test_no_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Repetition(0)
