"""Comparing gradients, and the spectrum of the Jacobian."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from equipoise.equilibrium import (
    Anderson,
    Equilibrium,
    Exact,
    JacobianFree,
    Phantom,
    compare_gradients,
    gradient_fidelity,
    jacobian_spectral_norm,
    spectral_radius,
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
    shorter, longer = [one, None, None], [one, 12 * torch.ones(1), None]
    for found, ratio in (
        (compare_gradients(shorter, longer), 5 / 13),
        (compare_gradients(longer, shorter), 13 / 5),
    ):
        assert float(found.norm_ratio) == pytest.approx(ratio)
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


def linear(weight: Tensor, z: Tensor) -> Tensor:
    return torch.bmm(weight, z.unsqueeze(2)).squeeze(2)


def test_a_rotation_has_the_radius_of_its_complex_pair() -> None:
    rotation = torch.tensor([[0.0, -0.9], [0.9, 0.0]])
    radius = spectral_radius(lambda z: z @ rotation.T, torch.ones(1, 2))
    torch.testing.assert_close(radius, torch.tensor([0.9]))


def test_random_matrices_have_the_radius_and_the_norm_of_their_decompositions() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 128, 128, generator=generator) / 128**0.5
    z = torch.randn(40, 128, generator=generator)
    radius = torch.linalg.eigvals(weight).abs().amax(dim=1)
    found = spectral_radius(lambda z: linear(weight, z), z)
    assert ((found - radius).abs() / radius).mean() <= 0.005
    norm = torch.linalg.matrix_norm(weight, 2)
    found = jacobian_spectral_norm(lambda z: linear(weight, z), z)
    assert ((found - norm).abs() / norm).max() <= 0.005


def test_the_jacobian_is_taken_at_the_state_and_the_input() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 12, generator=generator, dtype=torch.float64) / 4
    z, x = torch.randn(2, 3, 12, generator=generator, dtype=torch.float64)

    def f(z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ weight.T + x)

    jacobian = (1 - f(z, x) ** 2).unsqueeze(2) * weight
    radius = torch.linalg.eigvals(jacobian).abs().amax(dim=1)
    torch.testing.assert_close(spectral_radius(f, z, x), radius, rtol=1e-5, atol=0.0)
    norm = torch.linalg.matrix_norm(jacobian, 2)
    torch.testing.assert_close(jacobian_spectral_norm(f, z, x), norm, rtol=1e-5, atol=0.0)


def test_two_parts_and_fused_attention_work_under_no_grad_and_autocast() -> None:
    def f(state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        a, b = state
        attended = functional.scaled_dot_product_attention(a, a, a)
        return 0.5 * attended, 0.5 * b + attended.mean(dim=(1, 2))

    z = (torch.randn(2, 1, 4, 8), torch.randn(2, 8))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        radius, norm = spectral_radius(f, z), jacobian_spectral_norm(f, z)  # type: ignore[arg-type]
    assert radius.shape == norm.shape == (2,)
    assert (radius >= 0.49).all()
    assert (radius <= norm * 1.001).all()


def test_a_constant_function_has_none() -> None:
    z = torch.randn(2, 3)
    assert spectral_radius(lambda z: 0.0 * z, z).tolist() == [0.0, 0.0]


def test_a_sample_that_is_not_finite_has_no_radius_and_does_not_touch_the_others() -> None:
    z = torch.randn(2, 3)
    z[0] = torch.nan
    radius = spectral_radius(lambda z: 0.3 * z + 0.1 * z * z, z)
    assert torch.isnan(radius[0])
    assert torch.isfinite(radius[1])


def test_sizes_that_mean_nothing_are_refused() -> None:
    z = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="krylov_size"):
        spectral_radius(lambda z: z, z, products=3, krylov_size=4)
    with pytest.raises(ValueError, match="krylov_size"):
        jacobian_spectral_norm(lambda z: z, z, krylov_size=0)
