"""With tol = 0 a training step never asks a device for a value: proven without one.

A meta tensor has a shape and no values, so whatever reads one on the host raises an error there.
The same is checked on CUDA by tests/gpu.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from equipoise.equilibrium import (
    AdjointBroyden,
    Anderson,
    Broyden,
    Equilibrium,
    Exact,
    FixedPoint,
    GradientEstimator,
    JacobianFree,
    Neumann,
    NewtonKrylov,
    Phantom,
    Shine,
    Solver,
    Unrolled,
)

META = torch.device("meta")
BUDGET = 12  # more than the memory of each solver
SOLVERS = {
    kind.name: kind(max_steps=BUDGET, tol=0)
    for kind in (FixedPoint, Anderson, Broyden, AdjointBroyden, NewtonKrylov)
}
ESTIMATORS: dict[str, GradientEstimator] = {
    "phantom": Phantom(),
    "neumann": Neumann(),
    "jfb": JacobianFree(),
    "exact, fixed_point": Exact(SOLVERS["fixed_point"]),
    "exact, anderson": Exact(SOLVERS["anderson"]),
    "exact, broyden": Exact(SOLVERS["broyden"]),
    "unrolled": Unrolled(),
    "shine": Shine(),
    "shine refined": Shine(refine_steps=3),
}
PAIRS = [
    (solver, estimator)
    for solver in SOLVERS
    for estimator in ESTIMATORS
    if "shine" not in estimator or "broyden" in solver
]


@pytest.fixture(autouse=True)
def autocast_is_off_for_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch knows no autocast of the meta device, and says so with an error."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type: False)
    monkeypatch.setattr(torch, "autocast", lambda device_type, **_: nullcontext())


def step(solver: Solver, estimator: GradientEstimator) -> Tensor:
    """A forward and a backward pass; returns the gradient of the weight."""
    weight = torch.randn(6, 6, device=META, requires_grad=True)
    x = torch.randn(3, 6, device=META)
    layer = Equilibrium(solver, estimator)
    state = layer(lambda z, x: torch.tanh(functional.linear(z, weight) + x), torch.zeros_like(x), x)
    state.sum().backward()
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize(("solver", "estimator"), PAIRS)
def test_a_fixed_budget_reads_nothing_on_the_host(solver: str, estimator: str) -> None:
    assert step(SOLVERS[solver], ESTIMATORS[estimator]).shape == (6, 6)


def test_a_tolerance_is_read_on_the_host() -> None:
    with pytest.raises(RuntimeError, match="meta"):
        step(Anderson(), JacobianFree())
