"""Weight normalisation: the value, the gradients and the once-computed weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from equipoise.nn import NormalisedConv2d, NormalisedWeight, weights_computed_once


def normalised_pair() -> tuple[nn.Conv2d, NormalisedConv2d]:
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 4, 3, padding=1, bias=False, dtype=torch.float64)
    return plain, NormalisedConv2d(plain)


def test_a_new_weight_keeps_its_value() -> None:
    plain, normalised = normalised_pair()
    image = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(normalised(image), plain(image))


def test_the_length_is_the_norm_of_each_row() -> None:
    _, normalised = normalised_pair()
    with torch.no_grad():
        normalised.weight.length.copy_(torch.arange(1.0, 5.0).reshape(4, 1, 1, 1))
        normalised.weight.direction.mul_(7)
    torch.testing.assert_close(
        normalised.weight().flatten(1).norm(dim=1), torch.arange(1.0, 5.0, dtype=torch.float64)
    )


def test_agrees_with_torch() -> None:
    plain, normalised = normalised_pair()
    theirs = nn.utils.parametrizations.weight_norm(copy.deepcopy(plain))
    with torch.no_grad():
        for ours, other in zip(
            (normalised.weight.length, normalised.weight.direction),
            (theirs.parametrizations.weight.original0, theirs.parametrizations.weight.original1),
            strict=True,
        ):
            ours.add_(torch.randn_like(ours))
            other.copy_(ours)
    torch.testing.assert_close(normalised.weight(), theirs.weight)


def test_bias_is_refused() -> None:
    with pytest.raises(ValueError, match="no bias"):
        NormalisedConv2d(nn.Conv2d(1, 1, 1))


def test_once_computed_equals_plain_and_carries_gradients_from_under_no_grad() -> None:
    _, normalised = normalised_pair()
    image = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    f = weights_computed_once(normalised)
    with torch.no_grad():
        assert torch.equal(f(image), normalised(image))
    f(image).square().sum().backward()
    once = [parameter.grad.clone() for parameter in normalised.parameters()]
    normalised.zero_grad()
    normalised(image).square().sum().backward()
    for parameter, gradient in zip(normalised.parameters(), once, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
        assert gradient.abs().max() > 0


def test_the_weight_is_computed_a_single_time(monkeypatch: pytest.MonkeyPatch) -> None:
    _, normalised = normalised_pair()
    calls = []
    compute = NormalisedWeight._norm
    monkeypatch.setattr(NormalisedWeight, "_norm", lambda self: calls.append(1) or compute(self))
    f = weights_computed_once(normalised)
    for _ in range(5):
        f(torch.zeros(1, 3, 5, 5, dtype=torch.float64))
    assert len(calls) == 1


def test_nothing_is_held_between_calls() -> None:
    _, normalised = normalised_pair()
    f = weights_computed_once(normalised)
    f(torch.zeros(1, 3, 5, 5, dtype=torch.float64))
    assert normalised.weight.held is None
    copied = copy.deepcopy(normalised)
    assert torch.equal(copied.weight(), normalised.weight())
    assert set(normalised.state_dict()) == {"weight.length", "weight.direction"}


def test_nothing_is_held_after_an_error() -> None:
    _, normalised = normalised_pair()
    with pytest.raises(RuntimeError):
        weights_computed_once(normalised)(torch.zeros(1, 2, 5, 5, dtype=torch.float64))
    assert normalised.weight.held is None


def test_nested_evaluations_share_the_outer_weight() -> None:
    _, normalised = normalised_pair()

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = normalised

        def forward(self, image: Tensor) -> Tensor:
            outer = self.inner.weight.held
            result = weights_computed_once(self.inner)(image)
            assert outer is not None
            assert self.inner.weight.held is outer
            return result

    image = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    assert torch.equal(weights_computed_once(Outer())(image), normalised(image))


def test_checkpointing_recomputes_with_the_same_weights() -> None:
    _, normalised = normalised_pair()
    image = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    f = weights_computed_once(normalised)
    checkpoint(f, image, use_reentrant=False).square().sum().backward()
    recomputed = normalised.weight.length.grad.clone()
    normalised.zero_grad()
    normalised(image).square().sum().backward()
    torch.testing.assert_close(normalised.weight.length.grad, recomputed)
