"""Comparing gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import (
    Anderson,
    Equilibrium,
    Exact,
    JacobianFree,
    Phantom,
    compare_gradients,
    gradient_fidelity,
)
from tests.equilibrium.systems import cosine, dense, dense_gradient, joined, loss

TIGHT = Anderson(tol=1e-12, max_steps=80)


def test_cosine_and_norm_ratio_over_all_tensors_together() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = ([torch.randn(shape, generator=generator) for shape in ((3, 2), (4,))] for _ in range(2))
    found = compare_gradients(a, b)
    left, right = (torch.cat([part.flatten().double() for part in each]) for each in (a, b))
    torch.testing.assert_close(found.cosine, torch.cosine_similarity(left, right, dim=0))
    torch.testing.assert_close(found.norm_ratio, left.norm() / right.norm())


def test_none_counts_as_zero() -> None:
    one = torch.tensor([3.0, 4.0])
    found = compare_gradients([one, None, None], [one, 12 * torch.ones(1), None])
    assert float(found.norm_ratio) == pytest.approx(5 / 13)
    assert float(found.cosine) == pytest.approx(5 / 13)
    with pytest.raises(ValueError, match="no gradient to compare"):
        compare_gradients([None], [None])


def test_a_zero_gradient_has_no_cosine_but_is_finite() -> None:
    found = compare_gradients([torch.zeros(2)], [torch.ones(2)])
    assert (float(found.cosine), float(found.norm_ratio)) == (0.0, pytest.approx(0.0))


@pytest.mark.parametrize("estimator", [JacobianFree(), Phantom(), Exact(TIGHT)])
def test_a_layer_against_the_exact_gradient(estimator: JacobianFree | Phantom | Exact) -> None:
    problem = dense()
    layer = Equilibrium(TIGHT, estimator)

    def value() -> Tensor:
        return loss(layer(problem.f, problem.z0, problem.x))

    found = gradient_fidelity([layer], value, problem.sources, Exact(TIGHT))
    estimated, exact = torch.autograd.grad(value(), problem.sources), dense_gradient(problem)
    assert float(found.cosine) == pytest.approx(cosine(estimated, exact), abs=1e-9)
    ratio = joined(estimated).norm() / joined(exact).norm()
    assert float(found.norm_ratio) == pytest.approx(float(ratio), abs=1e-9)


def test_a_measurement_leaves_no_trace() -> None:
    problem = dense()
    own = JacobianFree()
    layer = Equilibrium(TIGHT, own)
    torch.manual_seed(4)
    before = torch.get_rng_state()

    def value() -> Tensor:
        noise = torch.rand_like(problem.x)  # both gradients have to see the same numbers
        return loss(layer(problem.f, problem.z0, problem.x + noise))

    layer.gradient = Exact(TIGHT)
    found = gradient_fidelity([layer], value, problem.sources, Exact(TIGHT))
    layer.gradient = own
    gradient_fidelity([layer], value, problem.sources, Exact(TIGHT))
    assert float(found.cosine) == pytest.approx(1.0, abs=1e-12)
    assert layer.gradient is own
    assert all(source.grad is None for source in problem.sources)
    assert torch.equal(torch.get_rng_state(), before)
