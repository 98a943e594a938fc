"""Gradients where f couples the samples of a batch, against a dense solve over all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from equipoise.equilibrium import (
    AdjointBroyden,
    Anderson,
    Auto,
    Broyden,
    Equilibrium,
    Exact,
    FixedPoint,
    GradientEstimator,
    NewtonKrylov,
    Shine,
    Solver,
)
from tests.equilibrium.systems import System, dense, leaf, relative_error

ROWS = 6


def batch_norm() -> System:
    """z = tanh(W norm(z) + x), normalised over the batch."""
    weight = leaf(5, 5, scale=0.15, seed=21, dtype=torch.float64)
    x = leaf(ROWS, 5, scale=1.0, seed=22, dtype=torch.float64)

    def f(z: Tensor, x: Tensor) -> Tensor:
        normed = functional.batch_norm(z, None, None, training=True)
        return torch.tanh(functional.linear(normed, weight) + x)

    return System(f, x.detach().clone(), x, (weight,))


def graph() -> System:
    """z = tanh(A z W + x), each row fed by the next one: the gradient travels along the chain."""
    weight = leaf(5, 5, scale=0.3, seed=23, dtype=torch.float64)
    x = leaf(ROWS, 5, scale=1.0, seed=24, dtype=torch.float64)
    adjacency = torch.diag(torch.ones(ROWS - 1, dtype=torch.float64), 1)

    def f(z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(0.9 * adjacency @ z @ weight + x)

    return System(f, torch.zeros_like(x.detach()), x, (weight,))


COUPLED = {"batch_norm": batch_norm, "graph": graph}
COTANGENTS: dict[str, Tensor] = {
    "even": torch.ones(ROWS, dtype=torch.float64),
    "first row alone": functional.one_hot(torch.tensor(0), ROWS).double(),
    "from 1e-8 to 1e8": torch.logspace(-8, 8, ROWS, dtype=torch.float64),
}
FORWARD = FixedPoint(tol=0, max_steps=100)
CONVERGING: dict[str, Callable[[], tuple[Solver, GradientEstimator]]] = {
    "anderson": lambda: (FORWARD, Exact(Anderson(tol=1e-12, max_steps=200))),
    "fixed_point": lambda: (FORWARD, Exact(FixedPoint(tol=1e-12, max_steps=200))),
    "auto": lambda: (FORWARD, Auto(every=1, candidates=(CONVERGING["anderson"]()[1],))),
}
ROW_BY_ROW: dict[str, Callable[[], tuple[Solver, GradientEstimator]]] = {
    "broyden": lambda: (FORWARD, Exact(Broyden(tol=1e-12, max_steps=80, memory=80))),
    "adjoint_broyden": lambda: (FORWARD, Exact(AdjointBroyden(tol=1e-12, max_steps=80, memory=80))),
    "newton_krylov": lambda: (FORWARD, Exact(NewtonKrylov(tol=1e-12, max_steps=80))),
    "shine": lambda: (Broyden(tol=0, max_steps=40), Shine(refine_steps=80)),
}


def weights(sizes: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(ROWS, 5, generator=generator, dtype=torch.float64) * sizes[:, None]


def dense_gradient(system: System, c: Tensor) -> tuple[Tensor, ...]:
    """The gradient by (I - J)^T w = c, solved for the whole batch at once."""
    z = system.z0
    with torch.no_grad():
        for _ in range(150):
            z = system.f(z, system.x)
    assert isinstance(z, Tensor)
    start = z.detach().requires_grad_()
    jacobian = torch.autograd.functional.jacobian(lambda z: system.f(z, system.x), start)
    matrix = torch.eye(c.numel(), dtype=c.dtype) - jacobian.reshape(c.numel(), c.numel())
    w = torch.linalg.solve(matrix.T, c.flatten()).reshape(c.shape)
    value = system.f(start, system.x)
    assert isinstance(value, Tensor)
    return torch.autograd.grad(value, system.sources, w)


def found_gradient(
    side: tuple[Solver, GradientEstimator], system: System, c: Tensor
) -> tuple[tuple[Tensor, ...], bool]:
    """What the estimator gives, and whether it says that every sample has converged."""
    layer = Equilibrium(*side)
    state = layer(system.f, system.z0, system.x)
    found = torch.autograd.grad((c * state).sum(), system.sources)
    assert layer.report is not None
    assert layer.report.backward is not None
    assert layer.report.backward.converged is not None
    return found, bool(layer.report.backward.converged.all())


@pytest.mark.parametrize("sizes", COTANGENTS)
@pytest.mark.parametrize("system", COUPLED)
@pytest.mark.parametrize("side", CONVERGING)
def test_equals_a_dense_solve_over_the_whole_batch(side: str, system: str, sizes: str) -> None:
    problem, c = COUPLED[system](), weights(COTANGENTS[sizes])
    found, converged = found_gradient(CONVERGING[side](), problem, c)
    assert converged
    assert relative_error(found, dense_gradient(problem, c)) < 1e-8


@pytest.mark.parametrize("system", COUPLED)
@pytest.mark.parametrize("side", ROW_BY_ROW)
def test_a_solver_whose_model_of_f_is_row_by_row_is_right_or_says_so(
    side: str, system: str
) -> None:
    """Coupling is noise to a secant of one row; what counts as converged is right all the same."""
    problem, c = COUPLED[system](), weights(COTANGENTS["even"])
    found, converged = found_gradient(ROW_BY_ROW[side](), problem, c)
    error = relative_error(found, dense_gradient(problem, c))
    assert error < (1e-8 if converged else 0.5)
    assert converged or system == "batch_norm" or side == "adjoint_broyden"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
@pytest.mark.parametrize("kind", [Anderson, Broyden, FixedPoint])
def test_rows_of_very_different_size_are_each_solved_to_the_tolerance(
    kind: type[Solver], dtype: torch.dtype, tolerance: float
) -> None:
    system = dense(dtype, batch=ROWS)
    estimator = Exact(kind(tol=tolerance / 100, max_steps=100))
    forward = FixedPoint(tol=0, max_steps=60)

    def gradient(sizes: Tensor) -> Tensor:
        state = Equilibrium(forward, estimator)(system.f, system.z0, system.x)
        return torch.autograd.grad((sizes.to(dtype)[:, None] * state).sum(), system.x)[0]

    sizes = COTANGENTS["from 1e-8 to 1e8"]
    found = gradient(sizes).double() / sizes[:, None]
    torch.testing.assert_close(found, gradient(COTANGENTS["even"]).double(), rtol=0, atol=tolerance)
