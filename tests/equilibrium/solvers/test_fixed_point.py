"""The damped fixed-point iteration."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from equipoise.equilibrium import FixedPoint
from tests.equilibrium.solvers.problems import Counted, dense


@pytest.mark.parametrize("damping", [1.0, 0.5, 0.2])
def test_the_iterates_are_those_of_the_formula(damping: float) -> None:
    f, z0, x = dense(dtype=torch.float64)
    counted = Counted(f)
    FixedPoint(damping=damping, max_steps=6, tol=0.0).solve(counted, z0, x)
    z = z0
    for seen in counted.seen:
        torch.testing.assert_close(seen, z, rtol=1e-12, atol=1e-14)
        z = (1 - damping) * z + damping * f(z, x)


def test_damping_tames_an_oscillation() -> None:
    def oscillates(z: torch.Tensor) -> torch.Tensor:
        return 1.0 - 1.5 * z

    z0 = torch.zeros(2, 3)
    assert not FixedPoint(max_steps=40).solve(oscillates, z0).converged.any()
    assert FixedPoint(max_steps=40, damping=0.5).solve(oscillates, z0).converged.all()


@pytest.mark.parametrize("damping", [0.0, -0.5, 1.1])
def test_a_damping_outside_its_range_is_refused(damping: float) -> None:
    with pytest.raises(ValueError, match="damping"):
        FixedPoint(damping=damping)


def test_an_undamped_step_is_the_evaluation_to_the_last_bit() -> None:
    f, z0, x = dense(gain=1.2)
    counted = Counted(f)
    FixedPoint(max_steps=6, tol=0.0).solve(counted, z0, x)
    for before, after in pairwise(counted.seen):
        assert torch.equal(f(before, x), after)
