"""Normalised and spectral weights: values, gradients, and computing them once; linear maps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from equipoise.equilibrium import Equilibrium, Exact, FixedPoint
from equipoise.nn import (
    NormalisedConv2d,
    NormalisedLinear,
    NormalisedWeight,
    SpectralConv2d,
    SpectralLinear,
    SpectralWeight,
    linear,
    weights_computed_once,
)


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


def settled(weight: SpectralWeight) -> SpectralWeight:
    for _ in range(300):
        weight.compute()
    return weight


def test_the_largest_singular_value_is_the_bound_where_it_was_above() -> None:
    torch.manual_seed(0)
    weight = settled(SpectralWeight(torch.randn(7, 12, dtype=torch.float64), bound=0.9))
    assert float(torch.linalg.matrix_norm(weight().detach(), 2)) == pytest.approx(0.9, abs=1e-9)


def test_a_weight_below_the_bound_stays_as_it_is() -> None:
    raw = 0.01 * torch.randn(4, 3)
    torch.testing.assert_close(settled(SpectralWeight(raw))(), raw, rtol=0, atol=0)


def test_the_gradient_is_that_of_dividing_by_the_exact_norm() -> None:
    torch.manual_seed(1)
    weight = settled(SpectralWeight(torch.randn(4, 5, dtype=torch.float64))).eval()
    probe = torch.randn(4, 5, dtype=torch.float64)

    def value(raw: torch.Tensor) -> torch.Tensor:
        exact = raw / torch.linalg.matrix_norm(raw, 2)
        return (exact * probe).sum()

    raw = weight.raw.detach().requires_grad_()
    (expected,) = torch.autograd.grad(value(raw), raw)
    (found,) = torch.autograd.grad((weight() * probe).sum(), weight.raw)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_evaluation_takes_no_step_of_the_power_iteration() -> None:
    layer = SpectralLinear(nn.Linear(5, 4)).eval()
    before = layer.weight.left.clone()  # type: ignore[union-attr]
    layer(torch.randn(2, 5))
    assert torch.equal(layer.weight.left, before)  # type: ignore[union-attr]


def test_one_step_a_forward_however_often_f_is_evaluated() -> None:
    torch.manual_seed(0)
    linear = SpectralLinear(nn.Linear(6, 6, bias=False), bound=0.5)
    twin = copy.deepcopy(linear)
    f = weights_computed_once(linear)
    layer = Equilibrium(FixedPoint(max_steps=20, tol=1e-6), Exact())
    x = torch.randn(3, 6)
    z = layer(lambda z, x: torch.tanh(f(z) + x), torch.zeros(3, 6), x)
    z.sum().backward()
    assert layer.report is not None
    assert bool(layer.report.converged.all())
    twin.weight.compute()
    torch.testing.assert_close(linear.weight.left, twin.weight.left)  # type: ignore[union-attr]


def test_a_map_with_a_bound_below_one_contracts() -> None:
    torch.manual_seed(0)
    convolution = SpectralConv2d(nn.Conv2d(4, 4, 1, bias=False), bound=0.7)
    f = weights_computed_once(convolution)
    a, b = torch.randn(2, 2, 4, 5, 5)
    assert float((f(a) - f(b)).norm()) <= 0.7 * 1.01 * float((a - b).norm())


def test_a_bound_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        SpectralWeight(torch.ones(2, 2), bound=0.0)


def test_a_plain_map_is_drawn_small_and_a_normalised_one_keeps_its_first_weights() -> None:
    torch.manual_seed(0)
    plain = linear(200, 300)
    assert isinstance(plain, nn.Linear)
    assert 0.009 < plain.weight.std() < 0.011
    assert not plain.bias.any()
    normalised = linear(200, 300, weight_norm=True)
    assert isinstance(normalised, NormalisedLinear)
    assert 0.03 < normalised.weight().std() < 0.05
    assert not normalised.bias.any()


def test_a_map_may_have_no_bias() -> None:
    assert linear(2, 3, bias=False).bias is None
    assert linear(2, 3, bias=False, weight_norm=True).bias is None
