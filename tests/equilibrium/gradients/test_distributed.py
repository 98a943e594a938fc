"""Two processes with half of the batch each against one process with all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from equipoise.equilibrium import Equilibrium
from tests.equilibrium.gradients.estimators import layers

SAMPLES, FEATURES = 6, 8
NAMES = tuple(layers())


class Model(nn.Module):
    """An encoder and an equilibrium in float64; one sample in two is harder than the others."""

    def __init__(self, layer: Equilibrium) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.encode = nn.Linear(FEATURES, FEATURES, dtype=torch.float64)
        self.mix = nn.Linear(FEATURES, FEATURES, dtype=torch.float64)
        for parameter in self.parameters():
            parameter.data.normal_(std=0.2, generator=generator)
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        injection = self.encode(x)
        state: Tensor = self.layer(
            lambda z, u: torch.tanh(self.mix(z) + u), torch.zeros_like(injection), injection
        )
        return state


def batch() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, FEATURES, generator=generator, dtype=torch.float64)
    return x * torch.linspace(0.01, 3.0, SAMPLES, dtype=torch.float64)[:, None]


def gradients(model: nn.Module, x: Tensor) -> Tensor:
    model(x).square().sum(dim=1).mean().backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])  # type: ignore[union-attr]


def work(rank: int, folder: str) -> None:
    """One of two processes; process 0 writes what it got."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    half = batch()[rank * SAMPLES // 2 : (rank + 1) * SAMPLES // 2]
    found = {
        name: gradients(DistributedDataParallel(Model(layer)), half)
        for name, layer in layers().items()
    }
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    distributed.barrier()  # a process that leaves first would cut the other's connection
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    folder: Path = tmp_path_factory.mktemp("distributed")
    multiprocessing.spawn(work, (str(folder),), nprocs=2)
    result: dict[str, Tensor] = torch.load(folder / "found.pt")
    return result


@pytest.mark.parametrize("name", NAMES)
def test_equals_one_process_with_the_whole_batch(name: str, found: dict[str, Tensor]) -> None:
    if name == "auto":  # the processes choose alike, but not from the gradient of the joined batch
        pytest.skip("what auto measures depends on how the batch is divided")
    expected = gradients(Model(layers()[name]), batch())
    assert float((found[name] - expected).norm() / expected.norm()) < 1e-6
