"""The objectives of inner problems: values, derivatives, bounds of curvature, and products."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import rbf_kernel
from torch import Tensor
from torch.autograd.functional import hessian
from torch.func import grad

from equipoise.models import KernelRidge, NonlinearLeastSquares
from equipoise.models.regularized.table import backward_product, forward_product
from tests.models.regularized.tables import LINEAR, MODELS, build, drawn, sparsely

sizes = st.tuples(st.integers(4, 20), st.integers(1, 6), st.integers(2, 4), st.integers(0, 99))


def point(model: torch.nn.Module, seed: int) -> Tensor:
    """Coefficients (1, D)."""
    assert isinstance(model.coefficients, Tensor)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(model.coefficients.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("intercept", [True, False])
@given(size=sizes)
@settings(max_examples=10, deadline=None)
def test_objective_and_gradient_of_a_linear_model_are_those_of_its_loss(kind, intercept, size):
    rows, features, classes, seed = size
    training = drawn(rows, features, classes, seed)
    model = build(kind, training, intercept=intercept)
    w = point(model, seed)

    def mean_loss(w: Tensor) -> Tensor:
        return model.loss(model.scores(training, w), training["target"]).mean()

    value, gradient = model.objective(w, training)
    torch.testing.assert_close(value, mean_loss(w).unsqueeze(0))
    torch.testing.assert_close(gradient, grad(mean_loss)(w))
    torch.testing.assert_close(model.gradient(w, training), gradient)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_kernel_ridge_has_the_dual_objective(classes):
    training = drawn(12, 4, classes)
    model = build(KernelRidge, training)
    model.prepare(training)
    w = point(model, 0)
    kernel = torch.from_numpy(rbf_kernel(training["features"].numpy(), gamma=0.5 / 4))
    torch.testing.assert_close(model.kernel(training["features"]).detach(), kernel)

    def dual(w: Tensor) -> Tensor:
        weights = w.view(12, -1)
        pulled = weights * model.wanted(training["target"])
        return (0.5 * (weights * (kernel @ weights)).sum() - pulled.sum()) / 12

    value, gradient = model.objective(w, training)
    torch.testing.assert_close(value, dual(w).unsqueeze(0))
    torch.testing.assert_close(gradient, grad(dual)(w))
    torch.testing.assert_close(model.gradient(w, training).detach(), gradient)


@pytest.mark.parametrize("kind", MODELS)
@given(size=sizes, spread=st.sampled_from([0.0, 0.1, 1.0, 5.0]))
@settings(max_examples=15, deadline=None)
def test_no_curvature_exceeds_its_bound(kind, size, spread):
    rows, features, classes, seed = size
    training = drawn(rows, features, classes, seed)
    model = build(kind, training)
    model.prepare(training)
    w = spread * point(model, seed)

    def value(w: Tensor) -> Tensor:
        return 0.5 * (model.gradient(w, training) * w).sum()

    if kind is not KernelRidge:  # whose objective is quadratic

        def value(w: Tensor) -> Tensor:
            return model.loss(model.scores(training, w), training["target"]).mean()

    dense = hessian(value, w).squeeze()
    largest = float(torch.linalg.eigvalsh(dense.view(w.shape[1], -1)).abs().max())
    assert largest <= model.curvature(training) * (1 + 1e-9)


def test_the_sharpness_of_least_squares_is_the_greatest_second_derivative_of_its_loss():
    model = build(NonlinearLeastSquares, drawn(4))
    scores = torch.linspace(-12, 12, 4001, dtype=torch.float64).unsqueeze(1).requires_grad_()
    for target in (0, 1):
        _, slope = model.loss_and_slope(scores, torch.full((4001,), target))
        (bend,) = torch.autograd.grad(slope.sum(), scores)
        assert 0.995 * model.sharpness <= float(bend.max()) <= model.sharpness
        assert -model.sharpness < float(bend.min()) < 0.0


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_class_is_the_one_that_fits_best(kind, classes):
    training = drawn(9, 3, classes)
    model = build(kind, training)
    scores = model.scores(training, point(model, 1)).detach()
    losses = [model.loss(scores, torch.full((9,), c)) for c in range(classes)]
    assert torch.equal(model.predicted(scores), torch.stack(losses).argmin(dim=0))


@given(size=sizes)
@settings(max_examples=10, deadline=None)
def test_a_sparse_product_is_the_dense_one_with_its_derivatives(size):
    rows, features, classes, seed = size
    dense = drawn(rows, features, classes, seed)
    dense["features"][dense["features"].abs() < 0.5] = 0.0
    dense["transposed"] = dense["features"].T.contiguous()
    sparse = sparsely(dense)
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(features, 2, generator=generator, dtype=torch.float64, requires_grad=True)

    def round_trip(v: Tensor) -> Tensor:
        return backward_product(sparse, forward_product(sparse, v).tanh())

    expected = dense["transposed"] @ (dense["features"] @ v).tanh()
    torch.testing.assert_close(round_trip(v), expected)
    assert torch.autograd.gradcheck(round_trip, v)
    assert torch.autograd.gradgradcheck(round_trip, v)
