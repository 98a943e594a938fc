"""L-BFGS on quadratics and on functions that are not convex, alone and in batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from equipoise.equilibrium import LBFGS, CurvaturePairs, Descent, Status
from tests.equilibrium.objectives import (
    Quadratic,
    Recorded,
    gaussian,
    quadratic,
    rosenbrock,
    rosenbrock_descent,
    uneven,
)


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 4),
    width=st.integers(1, 15),
    lowest=st.floats(0.01, 0.9),
    memory=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_it_minimises_quadratics(
    batch: int, width: int, lowest: float, memory: int, seed: int
) -> None:
    problem = quadratic(batch, width, lowest, seed)
    found = LBFGS(tol=1e-9, memory=memory).solve(
        problem.descent(), torch.zeros(batch, width).double()
    )
    assert found.converged.all()
    torch.testing.assert_close(found.z, problem.solution(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("width", [2, 5, 10])
def test_it_needs_about_as_many_evaluations_as_scipy(width: int) -> None:
    start = np.where(np.arange(width) % 2 == 0, -1.2, 1.0)

    def plain(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = rosenbrock(torch.from_numpy(z)[None])
        return float(value), gradient[0].numpy()

    options = {"maxcor": 30, "gtol": 1e-12, "ftol": 1e-20}
    theirs = minimize(plain, start, jac=True, method="L-BFGS-B", options=options)
    z0 = torch.from_numpy(start)[None]
    ours = LBFGS(tol=1e-12, stop="absolute").solve(rosenbrock_descent(), z0)
    assert ours.converged.all()
    assert ours.nfe <= 1.5 * theirs.nfev
    torch.testing.assert_close(ours.z[0], torch.from_numpy(theirs.x), rtol=1e-5, atol=1e-5)


def test_a_step_that_is_accepted_decreases_the_objective() -> None:
    objective = Recorded(rosenbrock)
    z0 = torch.tensor([[-1.2, 1.0], [2.0, -1.0]]).double()
    found = LBFGS(tol=1e-9, max_steps=200).solve(objective.descent(), z0)
    assert found.converged.all()
    lowest = torch.stack(objective.values).cummin(dim=0).values
    assert (lowest[-1] < 1e-12).all()
    torch.testing.assert_close(found.z, torch.ones(2, 2).double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stiffness", [3.0, 100.0, 1e4])
def test_a_first_step_that_is_much_too_long_is_shortened(stiffness: float) -> None:
    problem = quadratic(batch=2)
    stiff = Quadratic(stiffness * problem.matrix, stiffness * problem.shift)
    found = LBFGS(tol=1e-9).solve(stiff.descent(), 10 + torch.zeros(2, 10).double())
    assert found.converged.all()
    assert found.nfe < 60
    torch.testing.assert_close(found.z, problem.solution(), rtol=1e-6, atol=1e-6)


def test_values_that_differ_by_rounding_alone_do_not_stop_it() -> None:
    problem = quadratic(batch=2)

    def lifted(z: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = problem.objective(z)
        return value + 1e7, gradient

    z0 = torch.zeros(2, 10).double()
    found = LBFGS(tol=1e-11).solve(Descent(problem.gradient, lifted), z0)
    assert found.converged.all()
    assert found.nfe < 60


@pytest.mark.parametrize("memory", [2, 30])
def test_a_sample_is_solved_the_same_alone_and_in_a_batch(memory: int) -> None:
    z0 = gaussian(4, 3, seed=1) * torch.tensor([[0.1], [1.0], [2.0], [0.5]]).double()
    solver = LBFGS(tol=1e-8, memory=memory, max_steps=400)
    together = solver.solve(rosenbrock_descent(), z0)
    assert together.converged.all()
    assert len(set(together.steps.tolist())) > 2  # they end at different evaluations
    for sample in range(4):
        alone = solver.solve(rosenbrock_descent(), z0[sample : sample + 1])
        assert alone.steps.item() == together.steps[sample].item()
        torch.testing.assert_close(alone.z[0], together.z[sample], rtol=1e-7, atol=1e-9)


def test_carried_pairs_save_evaluations() -> None:
    problem = quadratic(width=40, lowest=0.01)
    descent = problem.descent()
    first = LBFGS(tol=1e-7).solve(descent, torch.zeros(4, 40).double())
    assert isinstance(descent.pairs, CurvaturePairs)
    nearby = Quadratic(problem.matrix, problem.shift + 0.1 * gaussian(4, 40, seed=8))
    carried = Descent(nearby.gradient, nearby.objective, pairs=descent.pairs)
    warm = LBFGS(tol=1e-7).solve(carried, first.z)
    cold = LBFGS(tol=1e-7).solve(nearby.descent(), first.z)
    assert warm.converged.all()
    assert warm.nfe < 0.8 * cold.nfe
    shorter = LBFGS(tol=1e-7, memory=5).solve(carried, first.z)
    assert shorter.converged.all()
    assert carried.pairs is not None
    assert carried.pairs.s.shape == (4, 5, 40)


@pytest.mark.parametrize("before", [1, 2, 7])
@pytest.mark.parametrize("after", [1, 2, 7])
def test_a_memory_of_any_size_goes_on_from_the_pairs_of_any_other(before: int, after: int) -> None:
    problem = quadratic()
    descent = problem.descent()
    first = LBFGS(tol=1e-3, memory=before).solve(descent, torch.zeros(4, 10).double())
    found = LBFGS(tol=1e-9, memory=after).solve(descent, first.z)
    assert found.converged.all()
    torch.testing.assert_close(found.z, problem.solution(), rtol=1e-6, atol=1e-6)
    assert descent.pairs is not None
    assert descent.pairs.size == after


def test_pairs_that_lead_nowhere_are_overcome() -> None:
    """The carried H is not finite, so the first step is one of steepest descent."""
    problem = quadratic(batch=1)
    descent = problem.descent()
    LBFGS(tol=1e-7).solve(descent, torch.zeros(1, 10).double())
    assert descent.pairs is not None
    descent.pairs = descent.pairs.moved(
        torch.full((10,), 1e200, dtype=torch.float64), torch.zeros(10)
    )
    assert not torch.isfinite(descent.pairs.apply(problem.shift)).all()
    found = LBFGS(tol=1e-7).solve(descent, torch.zeros(1, 10).double())
    assert found.converged.all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_ends_its_sample_alone(value: float) -> None:
    problem = quadratic(batch=3)

    def breaks(z: Tensor) -> tuple[Tensor, Tensor]:
        values, gradient = problem.objective(z)
        if len(objective.points) >= 5:
            values = values.index_fill(0, torch.tensor([1]), value)
            gradient = gradient.index_fill(0, torch.tensor([1]), value)
        return values, gradient

    objective = Recorded(breaks)
    found = LBFGS(tol=1e-9).solve(objective.descent(), torch.zeros(3, 10).double())
    assert found.status.tolist() == [Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED]
    assert torch.isfinite(found.z).all()
    for sample in (0, 2):
        torch.testing.assert_close(found.z[sample], problem.solution()[sample])
    assert found.inverse is not None
    assert torch.isfinite(found.inverse.apply(problem.shift)).all()


def test_an_objective_without_a_minimum_is_told() -> None:
    def falls(z: Tensor) -> tuple[Tensor, Tensor]:
        return -z.square().sum(dim=1), -2 * z

    found = LBFGS(max_steps=60).solve(Descent(lambda z: -2 * z, falls), torch.ones(2, 3))
    assert not found.converged.any()
    assert torch.isfinite(found.z).all()


def test_single_precision() -> None:
    problem = quadratic()
    single = Quadratic(problem.matrix.float(), problem.shift.float())
    found = LBFGS(tol=1e-5).solve(single.descent(), torch.zeros(4, 10))
    assert found.converged.all()
    assert found.z.dtype == torch.float32
    torch.testing.assert_close(found.z, problem.solution().float(), rtol=1e-3, atol=1e-3)


def test_samples_that_have_ended_can_leave_the_batch() -> None:
    problem = uneven()
    seen = []

    def objective(z: Tensor, matrix: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(z))
        return Quadratic(matrix, shift).objective(z)

    def gradient(z: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
        return Quadratic(matrix, shift).gradient(z)

    descent, inputs = Descent(gradient, objective), (problem.matrix, problem.shift)
    start = torch.zeros(4, 10).double()
    compact = LBFGS(tol=1e-8, compact_at=0.2).solve(descent, start, *inputs)
    assert min(seen) < 4
    whole = LBFGS(tol=1e-8).solve(problem.descent(), start)
    assert torch.equal(compact.steps, whole.steps)
    torch.testing.assert_close(compact.z, whole.z, rtol=1e-8, atol=1e-9)
    assert descent.pairs is not None
    assert descent.pairs.s.shape == (4, 30, 10)
    assert LBFGS(tol=1e-8).solve(descent, start, *inputs).converged.all()


def test_other_maps_and_missing_gradients_are_refused() -> None:
    problem = quadratic()
    with pytest.raises(TypeError, match="needs a Descent"):
        LBFGS().solve(lambda z: 0.5 * z, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="needs the outer_gradient"):
        LBFGS(opa_every=2).solve(problem.descent(), torch.zeros(4, 10).double())
    descent = problem.descent()
    descent.pairs = CurvaturePairs(torch.zeros(3, 10).double(), 4)
    with pytest.raises(ValueError, match=r"pairs of the Descent are for states \(3, 10\)"):
        LBFGS().solve(descent, torch.zeros(4, 10).double())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"memory": 0}, "memory must be at least 1"),
        ({"opa_every": 0}, "opa_every must be at least 1"),
        ({"opa_steps": 0}, "opa_steps must be at least 1"),
        ({"opa_every": 2, "compact_at": 0.5}, "compact_at needs opa_every=None"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LBFGS(**wrong)  # type: ignore[arg-type]
