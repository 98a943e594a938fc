"""A training step of fixed budget never makes the host wait for the GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from equipoise.equilibrium import (
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
from equipoise.equilibrium.state import parts
from tests.gpu.networks import CELLS, CUDA, cell, loss_of, mdeq, pictures

pytestmark = pytest.mark.gpu
BUDGET = 12  # more than any memory
SOLVERS: dict[str, Solver] = {
    kind.name: kind(max_steps=BUDGET, tol=0) for kind in (FixedPoint, Anderson, Broyden)
}
ESTIMATORS: dict[str, GradientEstimator] = {
    "phantom": Phantom(),
    "neumann": Neumann(),
    "jfb": JacobianFree(),
    "exact": Exact(),
}
OTHERS = {
    "newton_krylov": Equilibrium(NewtonKrylov(max_steps=BUDGET, tol=0), JacobianFree()),
    "shine": Equilibrium(SOLVERS["broyden"], Shine()),
    "shine refined": Equilibrium(SOLVERS["broyden"], Shine(refine_steps=3)),
    "unrolled": Equilibrium(FixedPoint(tol=0), Unrolled()),
}


def layer_of(solver: str, estimator: str) -> Equilibrium:
    backward = Exact(SOLVERS[solver]) if estimator == "exact" else ESTIMATORS[estimator]
    return Equilibrium(SOLVERS[solver], backward)


def step(layer: Equilibrium, f: nn.Module, z0: Tensor, x: Tensor) -> None:
    state = parts(layer(f, z0, x))
    torch.stack([part.square().sum() for part in state]).sum().backward()


def unread(layer: Equilibrium, name: str) -> None:
    """A step after one that fills caches, under the watch of torch; raises where the host waits."""
    f, z0, x = cell(name, CUDA)
    step(layer, f, z0, x)  # type: ignore[arg-type]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(layer, f, z0, x)  # type: ignore[arg-type]
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_fixed_budget_never_waits(solver: str, estimator: str, name: str) -> None:
    unread(layer_of(solver, estimator), name)


@pytest.mark.parametrize("layer", OTHERS)
def test_nor_do_the_others(layer: str) -> None:
    unread(OTHERS[layer], "two_branches")


def test_torch_sees_that_a_tolerance_waits() -> None:
    with pytest.raises(RuntimeError, match="synchroniz"):
        unread(Equilibrium(Anderson(), JacobianFree()), "dense")


@pytest.mark.parametrize("solver", ["anderson", "broyden"])
def test_a_whole_training_step_of_mdeq_never_waits(solver: str) -> None:
    network = mdeq(layer_of(solver, "exact"))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    image, label = pictures(4)

    def step() -> None:
        optimizer.zero_grad()
        loss_of(network, image, label).backward()
        optimizer.step()

    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
