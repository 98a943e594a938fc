"""Layers that share their weights, stored or recomputed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equipoise.models.repetition import Repetition


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
