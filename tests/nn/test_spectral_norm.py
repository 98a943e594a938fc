"""Spectral normalisation: the bound holds, one computation a forward, and the gradient is right."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from equipoise.equilibrium import Equilibrium, Exact, FixedPoint
from equipoise.nn import SpectralConv2d, SpectralLinear, SpectralWeight, weights_computed_once


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
