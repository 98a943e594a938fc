"""The mean of the last weights, its batch norms, and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from equipoise.callbacks import StochasticWeightAveraging

Run = Callable[..., Any]


class Steps(Callback):
    """Keeps the parameters after each step, and the rates that it had."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.rates: list[list[float]] = []
        self.validated: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.rates.append([group["lr"] for group in optimizer.param_groups])

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        named = pl_module.named_parameters()
        self.weights.append({name: value.detach().clone() for name, value in named})

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.validated = {n: v.clone() for n, v in pl_module.state_dict().items()}


class Scheduled(LightningModule):
    """Dropout before a batch norm in the middle, two groups of rates, and a falling schedule."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(5, 6), nn.Dropout(dropout))
        self.norm = nn.BatchNorm1d(6)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> Any:
        groups = [{"params": [*self.first.parameters(), *self.norm.parameters()], "lr": 0.1},
                  {"params": self.last.parameters(), "lr": 0.02}]  # fmt: skip
        optimizer = torch.optim.SGD(groups)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 20)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def fitted(
    loader: Any, make_trainer: Run, *callbacks: Callback, dropout: float = 0.3, **options: Any
) -> tuple[Steps, Scheduled]:
    torch.manual_seed(0)
    steps, task = Steps(), Scheduled(dropout)
    make_trainer([*callbacks, steps], **options).fit(task, loader, loader)
    return steps, task


def test_the_average_is_the_mean_of_the_last_weights_with_batch_norms_of_its_own(
    loader: Any, make_trainer: Run
) -> None:
    average = StochasticWeightAveraging(start=0.5, every=2)
    plain, _ = fitted(loader, make_trainer)
    steps, task = fitted(loader, make_trainer, average)
    for one, other in zip(plain.weights, steps.weights, strict=True):  # training notices nothing
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert average.updates == 3
    state = task.state_dict()
    for name in steps.weights[0]:
        mean = torch.stack([steps.weights[step][name] for step in (7, 9, 11)]).double().mean(0)
        assert torch.allclose(state[name].double(), mean, atol=1e-6)
    assert all(torch.equal(state[n], steps.validated[n]) for n in state if "tracked" not in n)
    torch.manual_seed(5)
    reference = Scheduled(dropout=0.0)  # as evaluation sees it
    reference.load_state_dict(state)
    update_bn((x for x, _ in loader), reference)
    assert torch.allclose(state["norm.running_mean"], reference.norm.running_mean, atol=1e-6)
    assert torch.allclose(state["norm.running_var"], reference.norm.running_var, atol=1e-6)


def test_an_epoch_without_a_validation_leaves_a_checkpoint_with_batch_norms_too(
    loader: Any, make_trainer: Run
) -> None:
    found = []
    for validated in (True, False):
        average = StochasticWeightAveraging(start=0.25)
        limit = None if validated else 0
        fitted(loader, make_trainer, average, dropout=0.0, limit_val_batches=limit)
        found.append(average.average)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_its_rate_is_reached_along_a_cosine_and_the_groups_keep_their_ratio(
    loader: Any, make_trainer: Run
) -> None:
    average = StochasticWeightAveraging(start=0.25, lr=0.05, annealing=4 / 12)
    steps, _ = fitted(loader, make_trainer, average)
    first = [rates[0] for rates in steps.rates]
    scheduled = [0.1 * (1 - step / 20) for step in range(4)]
    before = [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(5)]
    cosine = [0.05 + (scheduled[3] - 0.05) * part for part in before]
    assert first == pytest.approx([*scheduled[:3], *cosine, *[0.05] * 4])
    assert all(rates[1] == pytest.approx(rates[0] / 5) for rates in steps.rates)


def test_without_annealing_the_rate_is_constant_from_its_start(
    loader: Any, make_trainer: Run
) -> None:
    steps, _ = fitted(
        loader, make_trainer, StochasticWeightAveraging(start=0.0, lr=0.3, annealing=0.0)
    )
    assert [rates[0] for rates in steps.rates] == [0.3] * 12
