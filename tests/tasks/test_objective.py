"""What an objective adds to its loss, and how far it tells the regularisers that the run is."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from equipoise.equilibrium import (
    Anderson,
    Equilibrium,
    FixedPointCorrection,
    JacobianFree,
    JacobianRegularizer,
    Phantom,
    Regularizer,
    jacobian_norm,
)
from equipoise.errors import UserError
from equipoise.tasks import Classification
from equipoise.tasks.schedules import Constant


class Network(nn.Module):
    def __init__(self, regularizer: Regularizer | None, gradient: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)
        solver = Anderson(max_steps=12, tol=0)
        gradient = gradient or JacobianFree()
        self.equilibrium = Equilibrium(solver, gradient, regularizer=regularizer)

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(0.5 * self.inner(z) + x)

    def readout(self, z: Tensor) -> Tensor:
        return self.head(z)

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(1)
        return self.readout(self.equilibrium(self.f, torch.zeros_like(x), x))


class Silent(Network):
    readout = None  # type: ignore[assignment]

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(1)
        return self.head(self.equilibrium(self.f, torch.zeros_like(x), x))


def task_of(network: nn.Module) -> Classification:
    task = Classification(network, lambda p: torch.optim.SGD(p, 0.1), Constant(), classes=3)
    return task.train()


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"image": torch.randn(5, 1, 2, 3), "label": torch.tensor([0, 1, 2, 0, 1])}


def test_the_penalty_is_added_to_the_loss(batch: dict[str, Tensor]) -> None:
    plain = task_of(Network(None)).training_step(batch, 0)
    network = Network(JacobianRegularizer(weight=2.0, probes=3, seed=5))
    found = task_of(network).training_step(batch, 0)
    assert set(plain) == {"loss", "accuracy"}
    torch.testing.assert_close(found["loss"].detach(), plain["loss"].detach() + found["penalty"])
    assert found["penalty"] > 0
    assert network.equilibrium.penalty is None


def test_descent_on_the_penalty_makes_the_jacobian_smaller(batch: dict[str, Tensor]) -> None:
    def norm_after(regularizer: Regularizer | None) -> float:
        network = Network(regularizer)
        task = task_of(network)
        optimizer = torch.optim.SGD(task.parameters(), 0.3)
        for _ in range(30):
            optimizer.zero_grad()
            task.training_step(batch, 0)["loss"].backward()
            optimizer.step()
        x = batch["image"].flatten(1)
        z = Anderson(max_steps=40, tol=1e-6).solve(network.f, torch.zeros_like(x), x).z
        generator = torch.Generator().manual_seed(0)
        return float(jacobian_norm(network.f, z, 100, x, generator=generator).detach())

    assert norm_after(JacobianRegularizer(weight=3.0)) < 0.7 * norm_after(None)


@pytest.mark.parametrize("gradient", [JacobianFree(), Phantom(2)])
def test_the_losses_of_earlier_states_take_part(batch: dict[str, Tensor], gradient: Any) -> None:
    correction = FixedPointCorrection(weighting="constant", states=3)
    plain = task_of(Network(None, gradient)).training_step(batch, 0)["loss"]
    found = task_of(Network(correction, gradient)).training_step(batch, 0)
    # Three losses of nearly the same size: the early states are near the solution already.
    assert 2.5 < float(found["loss"].detach() / plain.detach()) < 3.5
    found["loss"].backward()


def test_a_network_without_readout_is_refused(batch: dict[str, Tensor]) -> None:
    with pytest.raises(UserError, match="choose regularizer=jacobian"):
        task_of(Silent(FixedPointCorrection())).training_step(batch, 0)


def test_nothing_is_regularised_in_evaluation(batch: dict[str, Tensor]) -> None:
    network = Network(JacobianRegularizer())
    task = task_of(network).eval()
    with torch.no_grad():
        task(batch["image"])
    assert network.equilibrium.penalty is None


def test_regularisers_are_told_the_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(JacobianRegularizer())
    task = task_of(network)
    trainer = SimpleNamespace(global_step=30, estimated_stepping_batches=120)
    monkeypatch.setattr(Classification, "trainer", trainer)
    task.on_train_batch_start({}, 0)
    assert network.equilibrium.regularizer is not None
    assert network.equilibrium.regularizer.progress == 0.25


def test_fused_optimisers_go_with_clipping_under_mixed_precision(tmp_path: Path) -> None:
    task = task_of(Network(None))
    task.make_optimizer = partial(torch.optim.SGD, lr=0.1, fused=True)
    before = task.model.head.weight.detach().clone()
    trainer = Trainer(
        accelerator="cpu", precision="bf16-mixed", gradient_clip_val=1e-3, max_steps=1,
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    batch = {"image": torch.randn(4, 6), "label": torch.tensor([0, 1, 2, 0])}
    trainer.fit(task, DataLoader([batch], batch_size=None))
    change = (task.model.head.weight - before).norm()
    assert 0 < change <= 1.001e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_mean_over_a_split_is_exact_whatever_the_weights_are(dtype: torch.dtype) -> None:
    task = task_of(Network(None)).to(dtype)
    assert {weight.dtype for weight in task.parameters()} == {dtype}
    loss = task.stage_metrics("val")["loss"]
    for _ in range(1000):  # sums in 16 bits would not grow beyond 256 batches of one, or 2048
        loss.update(torch.tensor(1.0, dtype=dtype))
        loss.update(torch.tensor(2.0, dtype=dtype))
    assert float(loss.compute()) == 1.5
