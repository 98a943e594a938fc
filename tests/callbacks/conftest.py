"""A small real task with a real equilibrium layer, trained by a real Trainer."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from equipoise.equilibrium import Anderson, Equilibrium, Exact, Phantom

BATCHES, BATCH = 6, 8
Bad = Callable[[int], bool]


class ToyNetwork(nn.Module):
    """x -> z* = tanh(W z* + U x) -> logits; `norm` gives it running statistics."""

    def __init__(self, exact: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)
        self.inject = nn.Linear(5, 6)
        self.recur = nn.Linear(6, 6, bias=False)
        nn.init.orthogonal_(self.recur.weight, gain=0.5)
        self.head = nn.Linear(6, 3)
        gradient = Exact(Anderson(max_steps=15, tol=1e-4)) if exact else Phantom(steps=2)
        self.equilibrium = Equilibrium(Anderson(max_steps=20, tol=1e-3), gradient)

    def forward(self, x: Tensor) -> Tensor:
        injection = self.inject(self.norm(x))
        z0 = torch.zeros_like(injection)
        z = self.equilibrium(lambda z, u: torch.tanh(self.recur(z) + u), z0, injection)
        return self.head(z)


class PlainNetwork(nn.Module):
    """A network without an equilibrium."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ToyTask(LightningModule):
    """Classification of random points by the sign of their coordinates.

    bad_loss and bad_gradient tell at which optimiser steps the loss, or only the gradient, is NaN.
    """

    def __init__(
        self, network: nn.Module, optimizer: str, bad_loss: Bad, bad_gradient: Bad
    ) -> None:
        super().__init__()
        self.model = network
        self.optimizer = optimizer
        self.bad_loss = bad_loss
        self.bad_gradient = bad_gradient
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        x, y = batch
        logits = self.model(x)
        loss = nn.functional.cross_entropy(logits, y)
        if self.bad_loss(self.global_step):
            loss = loss * torch.nan
        if self.bad_gradient(self.global_step):
            loss = loss + torch.sqrt(logits.sum() * 0.0)  # value 0, derivative 0 * inf
        self.losses.append(loss.item())
        accuracy = (logits.argmax(1) == y).float().mean()
        return {"loss": loss, "accuracy": accuracy.detach()}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluate(batch, "test")

    def evaluate(self, batch: Any, stage: str) -> None:
        x, y = batch
        logits = self.model(x)
        self.log(f"{stage}/loss", nn.functional.cross_entropy(logits, y))
        self.log(f"{stage}/accuracy", (logits.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = self.parameters()
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=0.01, weight_decay=0.1, foreach=True)
        return torch.optim.AdamW(
            parameters, lr=0.01, weight_decay=0.1, fused=self.optimizer == "fused"
        )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep torch to one thread and the runs reproducible."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def toy() -> Callable[..., ToyTask]:
    """Build a ToyTask; `equilibrium=False` gives the plain network."""

    def build(
        *,
        equilibrium: bool = True,
        exact: bool = False,
        optimizer: str = "sgd",
        bad_loss: Bad = lambda step: False,
        bad_gradient: Bad = lambda step: False,
    ) -> ToyTask:
        network = ToyNetwork(exact) if equilibrium else PlainNetwork()
        return ToyTask(network, optimizer, bad_loss, bad_gradient)

    return build


@pytest.fixture
def loader() -> DataLoader[Any]:
    """The same batches in the same order in every epoch."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCHES * BATCH, 5, generator=generator)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return DataLoader(TensorDataset(x, y), batch_size=BATCH)


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """Build a quiet CPU Trainer whose CSVLogger writes `metrics.csv` into tmp_path/`name`."""

    def build(
        callbacks: Sequence[Callback],
        *,
        name: str = "run",
        logger: Logger | list[Logger] | bool | None = None,
        log_every_n_steps: int = 2,
        max_epochs: int = 2,
        **options: Any,
    ) -> Trainer:
        options.setdefault("enable_checkpointing", False)
        options.setdefault("enable_progress_bar", False)
        return Trainer(
            accelerator="cpu",
            callbacks=list(callbacks),
            logger=CSVLogger(tmp_path, name=name, version="") if logger is None else logger,
            log_every_n_steps=log_every_n_steps,
            max_epochs=max_epochs,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **options,
        )

    return build


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., list[dict[str, str]]]:
    """Read metrics.csv; with a column, only the rows that fill it."""

    def read(column: str | None = None, name: str = "run") -> list[dict[str, str]]:
        with (tmp_path / name / "metrics.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        return [row for row in found if column is None or row.get(column)]

    return read
