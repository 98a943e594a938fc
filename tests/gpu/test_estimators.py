"""Every estimator gives the same gradients on CUDA as on the CPU, in float64, up to rounding."""

from __future__ import annotations

import pytest

from equipoise.equilibrium import (
    Anderson,
    Auto,
    Broyden,
    Equilibrium,
    Exact,
    FixedPoint,
    JacobianFree,
    Neumann,
    Phantom,
    Reversible,
    Shine,
    Unrolled,
)
from tests.gpu.networks import CELLS, CPU, CUDA, error, gradients

pytestmark = pytest.mark.gpu
ANDERSON = Anderson(max_steps=10, tol=0)
BROYDEN = Broyden(max_steps=10, tol=0)
LAYERS = {
    "exact, anderson": lambda: Equilibrium(ANDERSON, Exact(Anderson(max_steps=10, tol=0))),
    "exact, broyden": lambda: Equilibrium(BROYDEN, Exact(Broyden(max_steps=10, tol=0))),
    "exact, tolerances": lambda: Equilibrium(Anderson(tol=1e-6), Exact(Anderson(tol=1e-6))),
    "phantom": lambda: Equilibrium(ANDERSON, Phantom()),
    "neumann": lambda: Equilibrium(ANDERSON, Neumann()),
    "jfb": lambda: Equilibrium(FixedPoint(max_steps=10, tol=0), JacobianFree()),
    "jfb, last evaluation": lambda: Equilibrium(Anderson(max_steps=4, tol=1e-12), JacobianFree()),
    "shine": lambda: Equilibrium(BROYDEN, Shine()),
    "shine refined": lambda: Equilibrium(BROYDEN, Shine(refine_steps=4)),
    "unrolled": lambda: Equilibrium(FixedPoint(), Unrolled()),
    "unrolled, checkpointed": lambda: Equilibrium(FixedPoint(), Unrolled(checkpoint=True)),
    "reversible": lambda: Equilibrium(FixedPoint(), Reversible()),
    "auto": lambda: Equilibrium(ANDERSON, Auto(every=1, patience=1)),
}


@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_are_those_of_the_cpu(layer: str, name: str) -> None:
    found = gradients(name, LAYERS[layer](), CUDA)
    expected = gradients(name, LAYERS[layer](), CPU)
    assert error(found, expected) < 1e-6


@pytest.mark.parametrize("name", CELLS)
def test_auto_measures_and_chooses_the_same(name: str) -> None:
    chosen = []
    for device in (CUDA, CPU):
        auto = Auto(every=1, patience=1)
        layer = Equilibrium(ANDERSON, auto)
        for _ in range(2):
            gradients(name, layer, device)
        chosen.append(([m.chosen for m in auto.measurements], auto.name))
    assert chosen[0] == chosen[1]
