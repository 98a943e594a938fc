"""Every solver makes the same iterates on CUDA as on the CPU, in float64, up to rounding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from equipoise.equilibrium import (
    LBFGS,
    AdjointBroyden,
    Anderson,
    Broyden,
    ConjugateGradient,
    Exact,
    FixedPoint,
    NewtonKrylov,
    Solution,
    Solver,
)
from equipoise.equilibrium.state import parts
from tests.equilibrium.objectives import Quadratic, quadratic
from tests.gpu.networks import CELLS, CPU, CUDA, cell, error

pytestmark = pytest.mark.gpu
BUDGET = 10
SOLVERS: dict[str, Solver] = {
    "fixed_point": FixedPoint(max_steps=BUDGET, tol=0, damping=0.8),
    "anderson": Anderson(max_steps=BUDGET, tol=0, memory=4),
    "mixed anderson": Anderson(max_steps=BUDGET, tol=0, memory=3, mixing=0.7),
    "broyden": Broyden(max_steps=BUDGET, tol=0, memory=4),
    "adjoint_broyden": AdjointBroyden(max_steps=BUDGET, tol=0, memory=4),
    "newton_krylov": NewtonKrylov(max_steps=BUDGET, tol=0, krylov_steps=3),
}
CLOSE = {"newton_krylov": 1e-5}
"""Its products are differences, which lose half of the digits."""


def solved(solver: Solver, name: str, device: torch.device) -> Solution:
    f, z0, x = cell(name, device)
    return solver.solve(f, z0, x.detach())


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_iterate_is_the_same(solver: str, name: str) -> None:
    kept = replace(SOLVERS[solver], keep_states=tuple(range(1, BUDGET + 1)), trace=True)
    on_gpu, on_cpu = solved(kept, name, CUDA), solved(kept, name, CPU)
    assert on_gpu.nfe == on_cpu.nfe
    assert len(on_gpu.states) == BUDGET
    for found, expected in zip(on_gpu.states[1:], on_cpu.states[1:], strict=True):
        pair = [part.cpu() for part in parts(found)], list(parts(expected))
        assert error(*pair) < CLOSE.get(solver, 1e-8)
    assert torch.equal(on_gpu.status.cpu(), on_cpu.status)


@pytest.mark.parametrize("solver", [Anderson, Broyden, FixedPoint])
@pytest.mark.parametrize("share", [None, 0.2])
def test_samples_end_at_the_same_evaluations(solver: type[Solver], share: float | None) -> None:
    checked = solver(max_steps=60, tol=1e-4, compact_at=share)
    on_gpu, on_cpu = solved(checked, "dense", CUDA), solved(checked, "dense", CPU)
    assert torch.equal(on_gpu.steps.cpu(), on_cpu.steps)
    assert torch.equal(on_gpu.status.cpu(), on_cpu.status)
    assert bool(on_gpu.converged.all())
    assert error([on_gpu.z.cpu()], [on_cpu.z]) < 1e-8  # type: ignore[union-attr, list-item]


def test_a_minimum_is_the_same() -> None:
    problem = quadratic()
    on_gpu = Quadratic(problem.matrix.to(CUDA), problem.shift.to(CUDA))
    z0 = torch.zeros_like(problem.shift)
    found = LBFGS(tol=1e-10).solve(on_gpu.descent(), z0.to(CUDA))
    expected = LBFGS(tol=1e-10).solve(problem.descent(), z0)
    assert bool(found.converged.all())
    assert error([found.z.cpu()], [expected.z]) < 1e-8  # type: ignore[union-attr, list-item]


def test_conjugate_gradients_solve_the_adjoint_system_of_a_minimum() -> None:
    problem = quadratic()
    found = []
    for device in (CUDA, CPU):
        shift = problem.shift.to(device).requires_grad_()
        there = Quadratic(problem.matrix.to(device), shift)
        z = LBFGS(tol=1e-12).solve(there.descent(), torch.zeros_like(shift.detach()))
        exact = Exact(ConjugateGradient(tol=1e-12))
        state = exact.attach(there.descent(), z, torch.zeros_like(shift.detach()))
        (gradient,) = torch.autograd.grad(state.square().sum(), shift)  # type: ignore[union-attr]
        found.append(gradient.cpu())
    assert error([found[0]], [found[1]]) < 1e-8
