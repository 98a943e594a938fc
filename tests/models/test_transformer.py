"""The explicit transformer: the equilibrium one's parameters, plain iteration, its memory."""

from __future__ import annotations

from typing import cast

import torch
from token_models import deq_transformer, seeded, tokens, transformer

from equipoise.equilibrium import Unrolled
from equipoise.models import DEQTransformer, Transformer


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
