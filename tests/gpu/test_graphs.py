"""Passes replayed as CUDA graphs give the values and gradients of the passes themselves."""

from __future__ import annotations

from contextlib import nullcontext

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
    Phantom,
    Shine,
    Solver,
    Unrolled,
)
from equipoise.equilibrium.cuda_graph import graphed
from tests.gpu.networks import CUDA, cell, gradient_of, loss_of, mdeq, pictures

pytestmark = pytest.mark.gpu
FIXED_POINT = FixedPoint(max_steps=10, tol=0)
ANDERSON = Anderson(max_steps=10, tol=0)
BROYDEN = Broyden(max_steps=10, tol=0)
PAIRS: dict[str, tuple[Solver, GradientEstimator]] = {
    "fixed_point, phantom": (FIXED_POINT, Phantom()),
    "fixed_point, exact": (FIXED_POINT, Exact(FIXED_POINT)),
    "anderson, neumann": (ANDERSON, Neumann()),
    "anderson, exact": (ANDERSON, Exact(ANDERSON)),
    "broyden, jfb": (BROYDEN, JacobianFree()),
    "broyden, exact": (BROYDEN, Exact(BROYDEN)),
    "broyden, shine": (BROYDEN, Shine()),
    "unrolled": (FIXED_POINT, Unrolled()),
}


class Network(nn.Module):
    """A cell with an equilibrium, from an input to the parts of the state as one matrix."""

    def __init__(self, name: str, pair: str) -> None:
        super().__init__()
        self.cell, _, _ = cell(name, CUDA)
        self.equilibrium = Equilibrium(*PAIRS[pair])

    def forward(self, x: Tensor) -> Tensor:
        state = self.equilibrium(self.cell, self.cell.start(x), x)  # type: ignore[operator]
        parts = (state,) if isinstance(state, Tensor) else state
        return torch.cat([part.flatten(1) for part in parts], dim=1)


def passed(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and the gradients of the weights."""
    network.zero_grad()
    output = network(x)
    output.square().sum().backward()
    return output.detach().clone(), gradient_of(network)


def near(found: Tensor, expected: Tensor) -> bool:
    return float((found - expected).norm() / expected.norm()) < 1e-6


@pytest.mark.parametrize("name", ["convolution", "two_branches"])
@pytest.mark.parametrize("pair", PAIRS)
def test_replays_follow_inputs_and_weights(pair: str, name: str) -> None:
    _, _, x = cell(name, CUDA)
    first = x.detach()
    plain, replayed = Network(name, pair), graphed(Network(name, pair), first)
    for scale in (1.0, 0.5, -0.7):
        for found, expected in zip(
            passed(replayed, first * scale), passed(plain, first * scale), strict=True
        ):
            assert near(found, expected)
        with torch.no_grad():  # as an optimiser does, in place
            for network in (plain, replayed):
                for weight in network.parameters():
                    weight.mul_(0.9)
    assert replayed.equilibrium.report is not None
    assert plain.equilibrium.report is not None
    assert replayed.equilibrium.report.nfe == plain.equilibrium.report.nfe
    residuals = [n.equilibrium.report.residual for n in (replayed, plain)]
    assert torch.allclose(*residuals, rtol=1e-2, atol=1e-9)


def test_gradients_add_up_over_replays() -> None:
    _, _, x = cell("dense", CUDA)
    x = x.detach()
    network = graphed(Network("dense", "anderson, exact"), x)
    alone = [passed(network, part)[1] for part in (x, 2 * x)]
    network.zero_grad()
    for part in (x, 2 * x):
        network(part).square().sum().backward()
    assert near(gradient_of(network), alone[0] + alone[1])


def test_evaluation_and_other_shapes_run_as_before() -> None:
    _, _, x = cell("dense", CUDA)
    x = x.detach()
    network = graphed(Network("dense", "broyden, jfb"), x)
    plain = Network("dense", "broyden, jfb")
    for found, expected in zip(passed(network, x[:1]), passed(plain, x[:1]), strict=True):
        assert near(found, expected)
    expected = Network("dense", "broyden, jfb").eval()(x[:2])
    assert near(network.eval()(x[:2]), expected)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_mdeq_trains_alike(dtype: torch.dtype | None) -> None:
    image, label = pictures(8)
    cast = torch.autocast(CUDA.type, dtype=dtype) if dtype else nullcontext()
    losses = []
    for recorded in (False, True):
        network = mdeq(Equilibrium(BROYDEN, Exact(BROYDEN)))
        with cast:
            network = graphed(network, image) if recorded else network
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
        found = []
        for _ in range(3):
            optimizer.zero_grad()
            with cast:
                loss = loss_of(network, image, label)
            loss.backward()
            optimizer.step()
            found.append(float(loss))
        losses.append(found)
    assert losses[1] == pytest.approx(losses[0], rel=1e-2 if dtype is None else 5e-2)
