"""Networks of fixed budget do what their layers do with tol = 0, and elimination solves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from equipoise.equilibrium import (
    AdjointBroyden,
    Anderson,
    Broyden,
    Equilibrium,
    FixedPoint,
    NewtonKrylov,
    Phantom,
    Reversible,
    Solver,
    Unrolled,
)
from equipoise.equilibrium.fixed_budget import Eliminating, eliminated, with_fixed_budget
from equipoise.equilibrium.gradients import GradientEstimator


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


class Tanh(nn.Module):
    """z = tanh(z W^T + x)."""

    def __init__(self, solver: Solver, width: int = 6, gradient: GradientEstimator | None = None):
        super().__init__()
        generator = torch.Generator().manual_seed(width)
        weight = torch.randn(width, width, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(0.9 * weight / torch.linalg.matrix_norm(weight, 2))
        self.equilibrium = Equilibrium(solver, gradient or Phantom())

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.equilibrium(
            lambda z, x: torch.tanh(z @ self.weight.T + x), torch.zeros_like(x), x
        )
        return z


def samples(count: int, width: int = 6) -> Tensor:
    return torch.randn(
        count, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )


@pytest.mark.parametrize("kind", [Anderson, Broyden, FixedPoint, NewtonKrylov])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_sample_gets_the_whole_budget_of_the_same_solver(
    kind: type[Solver], steps: int
) -> None:
    network = Tanh(kind(max_steps=50, tol=1e-2, compact_at=0.5))
    fixed = with_fixed_budget(network, steps)
    x = samples(5)
    reference = kind(max_steps=steps, tol=0.0)
    solution = reference.solve(
        lambda z, x: torch.tanh(z @ network.weight.T + x), torch.zeros_like(x), x
    )
    assert torch.equal(fixed(x), solution.z)
    assert fixed.equilibrium.report is not None
    assert fixed.equilibrium.report.nfe == steps


def test_without_steps_it_is_the_most_that_the_evaluation_solver_may_spend() -> None:
    network = Tanh(FixedPoint(max_steps=4))
    network.equilibrium.eval_solver = Anderson(max_steps=9, tol=1e-1)
    fixed = with_fixed_budget(network)
    fixed(samples(2))
    assert fixed.equilibrium.solver == Anderson(max_steps=9, tol=0.0)
    assert fixed.equilibrium.report is not None
    assert fixed.equilibrium.report.nfe == 9


def test_the_network_itself_stays_as_it_is() -> None:
    network = Tanh(Anderson(max_steps=20, tol=1e-2)).train()
    before = network(samples(3))
    with_fixed_budget(network, 2)
    assert network.training
    assert network.weight.requires_grad
    assert network.equilibrium.solver.tol == 1e-2
    assert torch.equal(network(samples(3)), before)


@pytest.mark.parametrize("gradient", [Unrolled(steps=12), Reversible(steps=12)])
@pytest.mark.parametrize("steps", [2, 6])
def test_an_own_iteration_takes_what_the_budget_pays_for(
    gradient: GradientEstimator, steps: int
) -> None:
    fixed = with_fixed_budget(Tanh(FixedPoint(), gradient=gradient), steps)
    fixed(samples(2))
    assert fixed.equilibrium.report is not None
    assert fixed.equilibrium.report.nfe == steps


def test_adjoint_broyden_updates_as_where_autograd_is_off_for_good() -> None:
    network = Tanh(AdjointBroyden(max_steps=9, tol=0.0, memory=3))
    with torch.inference_mode():
        expected = network(samples(4))
    assert torch.equal(with_fixed_budget(network)(samples(4)), expected)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one evaluation"):
        with_fixed_budget(Tanh(Anderson()), 0)


@settings(deadline=None, max_examples=40)
@given(size=st.integers(1, 7), batch=st.integers(1, 4), seed=st.integers(0, 2**20))
def test_elimination_solves_what_needs_pivots(size: int, batch: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, size, size, generator=generator, dtype=torch.float64)
    # well conditioned, and with zeros where elimination without pivoting would divide
    matrix = torch.linalg.qr(noise)[0]
    matrix = torch.where(matrix.abs() < 0.1, 0.0, matrix)
    x = torch.randn(batch, size, generator=generator, dtype=torch.float64)
    right = (matrix @ x.unsqueeze(2)).squeeze(2)
    if torch.linalg.cond(matrix).max() < 1e4:
        assert torch.allclose(eliminated(matrix, right), x, atol=1e-9)


def test_elimination_swaps_rows_and_tells_a_singular_system() -> None:
    swapped = torch.tensor([[[0.0, 2.0], [4.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    x = eliminated(swapped, torch.tensor([[2.0, 8.0], [1.0, 2.0]]))
    assert x[0].tolist() == [2.0, 1.0]
    assert not torch.isfinite(x[1]).any()


def test_solvers_give_the_same_where_they_eliminate() -> None:
    network = with_fixed_budget(Tanh(Anderson(memory=4)), 12)
    expected = network(samples(5))
    with Eliminating():
        assert torch.allclose(network(samples(5)), expected, atol=1e-9, rtol=0)
