"""The same iterates as the torchdeq package, at equal memory and without a ridge."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import Anderson, Broyden, FixedPoint, Solver
from tests.equilibrium.solvers.problems import Counted, dense

peer = pytest.importorskip("torchdeq.solver")


@pytest.mark.parametrize(
    ("solver", "solve", "settings"),
    [
        (FixedPoint(max_steps=8, tol=0.0), peer.fixed_point_iter, {"max_iter": 8}),
        (
            Anderson(max_steps=8, tol=0.0, memory=6, ridge=0.0),
            peer.anderson_solver,
            {"max_iter": 8, "m": 6, "lam": 0.0},
        ),
        (Broyden(max_steps=8, tol=0.0, memory=8), peer.broyden_solver, {"max_iter": 7}),
    ],
    ids=["fixed_point", "anderson", "broyden"],
)
def test_the_first_eight_iterates_agree(
    solver: Solver, solve: Callable[..., object], settings: dict[str, float]
) -> None:
    f, z0, x = dense(gain=0.9, batch=8, width=64, dtype=torch.float64)
    own, other = Counted(f), Counted(lambda z: f(z, x))
    solver.solve(own, z0, x)
    solve(other, z0, tol=0.0, **settings)
    assert own.calls == other.calls == 8
    for mine, theirs in zip(own.seen[1:], other.seen[1:], strict=True):
        assert relative(mine, theirs) <= 1e-4


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()
