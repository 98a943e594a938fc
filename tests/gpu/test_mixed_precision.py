"""Training steps of MDEQ under autocast: finite, and near those in float32."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional

from equipoise.equilibrium import (
    Anderson,
    Broyden,
    Equilibrium,
    Exact,
    GradientEstimator,
    JacobianFree,
    Phantom,
    Shine,
    Solver,
)
from tests.gpu.networks import CUDA, gradient_of, loss_of, mdeq, pictures

pytestmark = pytest.mark.gpu
STEPS = 3
BUDGET = 8
PAIRS: dict[str, tuple[Solver, GradientEstimator]] = {
    "anderson, phantom": (Anderson(max_steps=BUDGET, tol=0), Phantom()),
    "broyden, exact": (Broyden(max_steps=BUDGET, tol=0), Exact(Broyden(max_steps=BUDGET, tol=0))),
    "broyden, shine": (Broyden(max_steps=BUDGET, tol=0), Shine()),
    "anderson, jfb": (Anderson(max_steps=BUDGET, tol=0), JacobianFree()),
}
LEAST = {"broyden, exact": 0.6}
"""Cosine to the gradient in float32; few steps on an untrained cell's adjoint magnify rounding."""


def trained(pair: str, dtype: torch.dtype | None) -> tuple[list[float], torch.Tensor]:
    """The losses of some steps, and the first step's gradient."""
    network = mdeq(Equilibrium(*PAIRS[pair]))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler(CUDA.type, enabled=dtype == torch.float16, init_scale=2.0**10)
    image, label = pictures(16)
    losses, first = [], None
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast(CUDA.type, dtype=dtype) if dtype else nullcontext():
            loss = loss_of(network, image, label)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        if first is None:
            first = gradient_of(network)
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(loss))
    assert first is not None
    return losses, first


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("pair", PAIRS)
def test_steps_are_finite_and_near_those_in_float32(pair: str, dtype: torch.dtype) -> None:
    losses, gradient = trained(pair, dtype)
    expected, exact = trained(pair, None)
    assert bool(torch.isfinite(gradient).all())
    assert losses == pytest.approx(expected, rel=0.05)
    assert float(functional.cosine_similarity(gradient, exact, dim=0)) > LEAST.get(pair, 0.9)
