"""Hyper-gradients of all estimators: against finite differences, and as the solves converge."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from equipoise.data import Tabular
from equipoise.equilibrium import (
    LBFGS,
    ConjugateGradient,
    Exact,
    FixedPoint,
    JacobianFree,
    Neumann,
    Phantom,
    Unrolled,
)
from equipoise.models import KernelRidge, LogisticRegression, NonlinearLeastSquares
from equipoise.models.regularized import RegularizedModel
from equipoise.models.regularized.table import Table
from tests.models.regularized.tables import (
    EXACT,
    LINEAR,
    MODELS,
    SHINE,
    build,
    bundled,
    cosine,
    drawn,
    error,
    hypergradient,
    sparsely,
)

SETS = ("breast_cancer", "digits")
TOLERANCES = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12)


def differences(
    model: RegularizedModel, training: Table, validation: Table, directions: Tensor
) -> Tensor:
    """Slopes of the outer loss along rows of `directions`, by central differences of order 4."""
    start = [p.detach().clone() for p in model.parameters()]
    sizes = [p.numel() for p in start]

    def loss(shift: Tensor) -> float:
        with torch.no_grad():
            for p, at, part in zip(model.parameters(), start, shift.split(sizes), strict=True):
                p.copy_(at + part)
            return float(model.outer_loss(model.solve(training), validation))

    step = 1e-3
    near = [loss(step * d) - loss(-step * d) for d in directions]
    far = [loss(2 * step * d) - loss(-2 * step * d) for d in directions]
    slopes = [(8 * a - b) / (12 * step) for a, b in zip(near, far, strict=True)]
    return torch.tensor(slopes, dtype=torch.float64)


def random_directions(count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((kind, {"strengths": s}) for kind in LINEAR for s in ("one", "feature", "coefficient")),
        (LogisticRegression, {"strengths": "feature", "intercept": False}),
        (KernelRidge, {}),
        (KernelRidge, {"strengths": "coefficient"}),
        (KernelRidge, {"scales": "feature", "log_scale": 0.5}),
    ],
)
def test_the_exact_gradient_is_the_slope_of_the_outer_loss(
    kind: type[RegularizedModel], settings: dict[str, Any], classes: int
) -> None:
    training, validation = drawn(12, 4, classes), drawn(18, 4, classes, seed=1)
    model = build(kind, training, log_strength=-3.0, **settings)
    found = hypergradient(model, training, validation)
    every = torch.eye(len(found), dtype=torch.float64)
    assert error(found, differences(model, training, validation, every)) <= 1e-6


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("strengths", ["one", "feature", "coefficient"])
def test_the_exact_gradient_of_bundled_sets_is_the_slope_of_the_outer_loss(
    kind: type[RegularizedModel], name: str, strengths: str
) -> None:
    training, validation = bundled(name)
    model = build(kind, training, strengths=strengths)
    found = hypergradient(model, training, validation)
    directions = random_directions(2, len(found))
    slopes = differences(model, training, validation, directions)
    assert error(directions @ found, slopes) <= 1e-6


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("name", SETS)
def test_shine_points_along_the_exact_gradient_and_opa_more_so(
    kind: type[RegularizedModel], name: str
) -> None:
    """At the default settings of model and solver, except for one lambda per feature."""
    training, validation = bundled(name)
    exact = hypergradient(build(kind, training, strengths="feature"), training, validation)

    def found(solver: LBFGS) -> Tensor:
        model = build(kind, training, solver, SHINE, strengths="feature")
        return hypergradient(model, training, validation)

    assert cosine(found(LBFGS(tol=1e-6)), exact) >= 0.9
    for every in (1, 2, 5):
        assert cosine(found(LBFGS(tol=1e-6, opa_every=every)), exact) >= 0.99


def errors_by_tolerance(
    kind: type[RegularizedModel], every: int | None, memory: int
) -> dict[float, float]:
    training, validation = bundled("breast_cancer")
    exact = hypergradient(build(kind, training, strengths="feature"), training, validation)

    def found(tolerance: float) -> Tensor:
        solver = LBFGS(tol=tolerance, max_steps=10_000, opa_every=every, memory=memory)
        model = build(kind, training, solver, SHINE, strengths="feature")
        return hypergradient(model, training, validation)

    return {tolerance: error(found(tolerance), exact) for tolerance in TOLERANCES}


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("every", [1, 5])
def test_the_error_of_opa_vanishes_as_the_inner_problem_converges(
    kind: type[RegularizedModel], every: int
) -> None:
    """Ramzi et al. 2022, theorem 3: the gradient of SHINE with OPA converges to the exact one."""
    errors = errors_by_tolerance(kind, every=every, memory=30)
    assert errors[1e-2] > 1e-3
    for loose, tight in pairwise(TOLERANCES[:4]):
        assert errors[tight] < max(0.1 * errors[loose], 1e-7)
    assert max(errors[1e-10], errors[1e-12]) < 1e-6


@pytest.mark.parametrize("kind", LINEAR)
def test_shine_approaches_the_exact_gradient_with_the_inner_problem(
    kind: type[RegularizedModel],
) -> None:
    errors = errors_by_tolerance(kind, every=None, memory=30)
    loose, tight = (sum(errors[t] for t in part) for part in (TOLERANCES[:3], TOLERANCES[3:]))
    assert tight < 0.7 * loose


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("estimator", [EXACT, SHINE])
def test_sparse_and_dense_tables_give_the_same(kind: type[RegularizedModel], estimator) -> None:
    dense = [drawn(60, 8, 3, seed) for seed in (0, 1)]
    for part in dense:
        part["features"][part["features"].abs() < 0.7] = 0.0
        part["transposed"] = part["features"].T.contiguous()
    both = []
    for tables in (dense, [sparsely(part) for part in dense]):
        model = build(kind, tables[0], LBFGS(tol=1e-8), estimator, strengths="feature")
        both.append(hypergradient(model, *tables))
        assert model.coefficients.layout == torch.strided
    assert error(both[1], both[0]) < 1e-8


@pytest.mark.parametrize("kind", MODELS)
def test_long_series_end_at_the_exact_gradient(kind: type[RegularizedModel]) -> None:
    training, validation = drawn(40), drawn(30, seed=1)
    expected = hypergradient(build(kind, training), training, validation)

    def found(estimator: Any, **settings: Any) -> Tensor:
        model = build(kind, training, gradient=estimator, **settings)
        return hypergradient(model, training, validation)

    assert error(found(Neumann(steps=400)), expected) < 1e-6
    assert error(found(Unrolled(steps=400), solver=FixedPoint(tol=1e-3)), expected) < 1e-6
    assert error(found(Phantom(steps=400, damping=1.0)), expected) < 1e-6
    assert error(found(JacobianFree()), expected) > error(found(Neumann(steps=3)), expected)


def test_a_refined_estimate_of_shine_is_nearer_to_the_exact_gradient() -> None:
    training, validation = bundled("digits")
    exact = hypergradient(
        build(NonlinearLeastSquares, training, strengths="feature"), training, validation
    )

    def found(steps: int) -> float:
        estimator = type(SHINE)(refine_steps=steps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = build(
                NonlinearLeastSquares, training, LBFGS(tol=1e-6), estimator, strengths="feature"
            )
            return error(hypergradient(model, training, validation), exact)

    assert found(20) < 0.1 * found(0)


def test_conjugate_gradients_go_on_where_residuals_grow_at_first() -> None:
    """With more columns than rows and hardly a penalty, they grow for more than thirty steps."""
    data = Tabular(data="sparse", rows=60, columns=200, density=0.1)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    solver = ConjugateGradient(tol=1e-3)
    model = build(
        NonlinearLeastSquares, batch["training"], LBFGS(tol=1e-3), Exact(solver=solver),
        log_strength=-20.0, bounds=[-700.0, 0.0],
    )  # fmt: skip
    assert float(hypergradient(model, batch["training"], batch["validation"])) > 1e-4
    assert model.equilibrium.report.backward.residual <= solver.tol
