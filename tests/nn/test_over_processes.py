"""Batch norm over two processes against torch's own on the joined batch, also within a solve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from equipoise.equilibrium import Anderson, Broyden, Equilibrium, Exact, Phantom
from equipoise.equilibrium.gradients import GradientEstimator
from equipoise.nn.over_processes import BatchNormOverProcesses
from equipoise.running.synchronised_norms import SynchronisedNorms

ROWS, WIDTH = 10, 4
ESTIMATORS: dict[str, GradientEstimator] = {
    "exact": Exact(Anderson(max_steps=60, tol=1e-10)),
    "phantom": Phantom(steps=4, damping=0.7),
}


class Network(nn.Module):
    """A batch norm in front of an equilibrium and one within it, in float64."""

    def __init__(self, gradient: GradientEstimator, tol: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encode = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH, momentum=None)
        self.layer = Equilibrium(Broyden(max_steps=80, tol=tol, memory=80), gradient)
        self.double()
        self.mix.weight.data *= 0.5

    def forward(self, x: Tensor) -> Tensor:
        state: Tensor = self.layer(
            lambda z, u: 0.3 * torch.tanh(self.norm(self.mix(z) + u)), torch.zeros_like(x),
            self.encode(x),
        )  # fmt: skip
        return state


def batch() -> Tensor:
    """Rows of very different sizes, so that the processes would stop apart."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    return x * torch.linspace(0.01, 3.0, ROWS, dtype=torch.float64)[:, None]


def trained(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """The state, the gradients and the running statistics after one step in training."""
    state = model(x)
    state.square().sum(dim=1).mean().backward()
    names = {n.removeprefix("module."): p.grad for n, p in model.named_parameters()}
    statistics = {n.removeprefix("module."): b for n, b in model.named_buffers() if "running" in n}
    return {"state": state.detach(), **names, **statistics}


def work(rank: int, folder: str) -> None:
    """One of two processes with half of the rows."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    half = batch()[rank * ROWS // 2 : (rank + 1) * ROWS // 2]
    found = {}
    for name, gradient in ESTIMATORS.items():
        model = SynchronisedNorms().apply(Network(gradient, tol=1e-8))
        layer: Any = model.layer
        found[name] = trained(DistributedDataParallel(model), half)
        found[name]["evaluations"] = layer.report.nfe, layer.report.residual
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.barrier()  # a process that leaves first would cut the other's connection
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("norms")
    multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_two_processes_are_one_with_the_joined_rows(name: str, found: list[dict[str, Any]]) -> None:
    expected = trained(Network(ESTIMATORS[name], tol=1e-10), batch())
    first, second = (dict(part[name]) for part in found)
    state = torch.cat((first.pop("state"), second.pop("state")))
    torch.testing.assert_close(state, expected.pop("state"), rtol=0, atol=1e-6)
    first.pop("evaluations")
    averages = {n: first.pop(n) for n in list(first) if n.startswith("norm.running")}
    assert averages.keys() <= expected.keys()  # of as many evaluations as the solve took
    for key, value in first.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6, msg=key)


def test_they_stop_together(found: list[dict[str, Any]]) -> None:
    for name in ESTIMATORS:
        (nfe, residual), (other, residuals) = (part[name]["evaluations"] for part in found)
        assert nfe == other < 80
        assert float(torch.cat((residual, residuals)).max()) <= 1e-8


def test_alone_it_is_torchs_batch_norm() -> None:
    for settings in ({}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}):
        torch.manual_seed(0)
        plain: nn.Module = nn.BatchNorm2d(3, **settings)  # type: ignore[arg-type]
        ours = SynchronisedNorms().apply(nn.Sequential(nn.BatchNorm2d(3, **settings)))[0]  # type: ignore[index,arg-type]
        assert isinstance(ours, BatchNormOverProcesses)
        for training in (True, True, False):
            x = torch.randn(4, 3, 2, 2)
            assert torch.equal(plain.train(training)(x), ours.train(training)(x))
        torch.testing.assert_close(plain.state_dict(), ours.state_dict(), rtol=0, atol=0)
