"""The measured fidelity in real runs, which must continue as if nothing had been measured."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torchmetrics import MeanMetric

from equipoise.callbacks import (
    ConvergenceMonitor,
    DivergenceGuard,
    GradientFidelity,
    GradientSchedule,
    Phase,
    TrainingCurve,
)
from equipoise.callbacks.beside_training import preserved, refuse_manual_and_sharded
from equipoise.callbacks.gradient_fidelity import first_samples
from equipoise.equilibrium import (
    Anderson,
    Auto,
    Equilibrium,
    Exact,
    GradientEstimator,
    JacobianFree,
    JacobianRegularizer,
    Neumann,
    Phantom,
    Unrolled,
)
from equipoise.errors import UserError

Run = Callable[..., Any]
TIGHT = Anderson(max_steps=40, tol=1e-6)


class RestlessTask(LightningModule):
    """All that a measurement could disturb: dropout, running statistics, counters, a sum."""

    def __init__(self, gradient: GradientEstimator) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)
        self.inject = nn.Linear(5, 6)
        self.recur = nn.Linear(6, 6, bias=False)
        nn.init.orthogonal_(self.recur.weight, gain=0.5)
        self.head = nn.Linear(6, 3)
        self.layer = Equilibrium(
            Anderson(max_steps=9, tol=1e-3), gradient, jitter=3, random_start=0.5,
            regularizer=JacobianRegularizer(probability=0.5),
        )  # fmt: skip
        self.memory = torch.zeros(6)
        self.total = torch.zeros(())
        self.calls: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        self.calls.append(batch_idx)
        injection = nn.functional.dropout(self.inject(self.norm(x)), 0.3)
        f = lambda z, u: torch.tanh(self.recur(z) + u)  # noqa: E731
        z = self.layer(f, self.memory.expand(len(x), 6), injection)
        self.memory = z.detach().mean(0)
        self.total += z.detach().sum()
        loss = nn.functional.cross_entropy(self.head(z), y)
        penalty = self.layer.pop_penalty()
        return loss if penalty is None else loss + penalty

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def everything(task: RestlessTask) -> dict[str, Any]:
    """All that training has changed."""
    return {
        **task.state_dict(),
        "memory": task.memory,
        "total": task.total,
        "calls": torch.tensor(task.calls),
        "random": torch.get_rng_state(),
    }


@pytest.mark.parametrize("gradient", [Phantom(), Exact(), Auto(every=4), Unrolled(steps=4)])
def test_training_ends_at_the_same_bits_with_and_without_it(
    gradient: GradientEstimator, loader: Any, make_trainer: Run
) -> None:
    ends = []
    for measured in (False, True):
        torch.manual_seed(3)
        task = RestlessTask(deepcopy(gradient))
        fidelity = GradientFidelity(every=2, samples=5)
        callbacks = [TrainingCurve(), ConvergenceMonitor(), DivergenceGuard()]
        make_trainer([*callbacks, *([fidelity] if measured else [])]).fit(task, loader)
        ends.append(everything(task))
        assert bool(fidelity.summary()) == measured
        if isinstance(gradient, Auto):
            assert isinstance(task.layer.gradient, Auto)
            assert task.layer.gradient.calls == 12
    for name, value in ends[0].items():
        assert torch.equal(ends[1][name], value), name


def test_columns_and_the_mean_of_the_last_epoch(
    toy: Run, loader: Any, make_trainer: Run, rows: Run
) -> None:
    task = toy()
    task.model.equilibrium.gradient = JacobianFree()
    fidelity = GradientFidelity(every=3, samples=None)
    make_trainer([TrainingCurve(), fidelity], log_every_n_steps=1).fit(task, loader)
    found = rows("fidelity/cosine")
    assert [int(row["step"]) for row in found] == [1, 4, 7, 10]  # steps 0, 3, 6, 9 have ended
    cosines = [float(row["fidelity/cosine"]) for row in found]
    assert all(0.8 < cosine < 0.9999 for cosine in cosines)
    assert all(float(row["fidelity/norm_ratio"]) < 1.2 for row in found)
    assert all(float(row["fidelity/reference_residual"]) < 2e-6 for row in found)
    summary = fidelity.summary()["gradient_fidelity"]
    assert summary["cosine"] == pytest.approx(sum(cosines[2:]) / 2, abs=1e-6)
    assert set(summary) == {"cosine", "norm_ratio", "reference_residual"}


def first_cosine(task: Any, loader: Any, make_trainer: Run, **settings: Any) -> float:
    fidelity = GradientFidelity(every=100, **settings)
    make_trainer([fidelity], max_epochs=1).fit(task, loader)
    summary = fidelity.summary()["gradient_fidelity"]
    return summary["cosine"]


def test_it_is_the_cosine_of_the_gradients_before_the_layer(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    task = toy()
    layer = task.model.equilibrium
    layer.gradient, layer.solver = JacobianFree(), TIGHT
    before = [*task.model.norm.parameters(), *task.model.inject.parameters()]
    before += task.model.recur.parameters()
    copy = deepcopy(task)
    batch = next(iter(loader))
    gradients = []
    for estimator in (JacobianFree(), Exact(TIGHT)):
        layer.gradient = estimator
        found = torch.autograd.grad(task.training_step(batch, 0)["loss"], before)
        gradients.append(torch.cat([part.flatten() for part in found]))
    expected = float(torch.cosine_similarity(*gradients, dim=0))
    measured = first_cosine(copy, loader, make_trainer, samples=None)
    assert measured == pytest.approx(expected, abs=1e-5)
    assert first_cosine(toy(), loader, make_trainer, samples=4) != measured


def test_a_short_solve_counts_as_an_error_of_the_gradient(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    cosines = []
    for max_steps in (2, 30):
        torch.manual_seed(0)
        task = toy()
        layer = task.model.equilibrium
        nn.init.orthogonal_(task.model.recur.weight, gain=0.9)
        layer.solver = Anderson(max_steps=max_steps, tol=1e-6)
        layer.gradient = Exact(Anderson(max_steps=60, tol=1e-6))
        cosines.append(first_cosine(task, loader, make_trainer))
    assert cosines[0] < 0.999
    assert cosines[1] > 1 - 1e-6


def test_each_phase_is_measured_by_its_own_estimator(
    toy: Run, loader: Any, make_trainer: Run, rows: Run
) -> None:
    schedule = GradientSchedule([Phase(0, JacobianFree()), Phase(6, Neumann(steps=12))])
    fidelity = GradientFidelity(every=6, samples=None)
    callbacks = [ConvergenceMonitor(), schedule, fidelity]
    make_trainer(callbacks, log_every_n_steps=1).fit(toy(), loader)
    first, second = rows("fidelity/cosine")
    assert (first["gradient"], second["gradient"]) == ("jfb", "neumann")
    assert float(second["fidelity/cosine"]) > float(first["fidelity/cosine"])


def test_accumulated_batches_are_one_step(toy: Run, loader: Any, make_trainer: Run) -> None:
    measured = []
    fidelity = GradientFidelity(every=1, samples=2)
    make = fidelity._measure
    fidelity._measure = lambda *args: (measured.append(1), make(*args))[1]  # type: ignore[method-assign]
    make_trainer([fidelity], max_epochs=1, accumulate_grad_batches=2).fit(toy(), loader)
    assert len(measured) == 3


def test_a_solve_that_raises_in_training_does_not_raise_in_the_measurement(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    task = toy()
    task.model.equilibrium.solver = Anderson(max_steps=30, tol=1e-3)
    task.model.equilibrium.on_failure = "raise"
    assert first_cosine(task, loader, make_trainer, max_steps=3, tol=1e-12) > 0.5
    assert task.model.equilibrium.on_failure == "raise"


def test_a_network_without_equilibrium_is_left_alone(
    toy: Run, loader: Any, make_trainer: Run, rows: Run
) -> None:
    fidelity = GradientFidelity(every=1)
    make_trainer([TrainingCurve(), fidelity]).fit(toy(equilibrium=False), loader)
    assert fidelity.summary() == {}
    assert "fidelity/cosine" not in rows()[0]


def test_what_cannot_be_measured_is_refused(toy: Run, loader: Any, make_trainer: Run) -> None:
    task = toy()
    task.automatic_optimization = False
    with pytest.raises(UserError, match="steps its optimisers itself"):
        make_trainer([GradientFidelity()]).fit(task, loader)
    sharded: Any = SimpleNamespace(strategy=FSDPStrategy.__new__(FSDPStrategy))  # needs no GPU
    with pytest.raises(UserError, match="strategy=ddp"):
        refuse_manual_and_sharded(sharded, toy(), "gradient_fidelity")
    for wrong in ({"every": 0}, {"samples": 0}):
        with pytest.raises(UserError, match="at least 1"):
            GradientFidelity(**wrong)


CPU = torch.device("cpu")


class Restless(nn.Module):
    """Changes whatever a module can change in itself."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("rows", torch.zeros(1).expand(4))
        self.part: nn.Module | None = nn.Linear(3, 3)
        self.metric = MeanMetric()
        self.count = 0
        self.seen: list[float] = []
        self.latest: Tensor | None = None

    def change(self) -> None:
        self.latest = self.norm(torch.randn(8, 3))
        self.metric.update(self.latest)
        self.seen.append(self.latest.sum().item())
        self.count += 1
        self.part = None
        self.rows = torch.ones(4)
        self.extra = "new"
        self.register_forward_hook(lambda *_: None)


def state(module: Restless) -> list[str]:
    return [str(dict(vars(part))) for part in module.modules()]


def test_values_attributes_submodules_and_random_numbers_come_back() -> None:
    module = Restless()
    module.change()
    module.part = nn.Linear(3, 3)
    before, part, random = state(module), module.part, torch.get_rng_state()
    with preserved(module, CPU):
        module.change()
        assert state(module) != before
    assert state(module) == before
    assert module.part is part
    assert torch.equal(torch.get_rng_state(), random)


def test_it_comes_back_after_an_error_too() -> None:
    module = Restless()
    before = state(module)

    def stopped() -> None:
        with preserved(module, CPU):
            module.change()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert state(module) == before


def test_tensors_of_inference_mode_are_no_obstacle() -> None:
    module = Restless()
    with torch.inference_mode():
        module.latest = torch.ones(2)
        module.metric.reset()
    with preserved(module, CPU):
        module.count += 1
    assert module.count == 0


Pair = namedtuple("Pair", "image scale")


def test_the_first_samples_of_any_batch() -> None:
    image, index, weight = torch.rand(6, 2), torch.arange(6), torch.rand(3)
    cut = first_samples({"image": image, "rest": [index, weight, "text"]}, 4)
    assert torch.equal(cut["image"], image[:4])
    assert torch.equal(cut["rest"][0], index[:4])
    assert cut["rest"][1] is weight
    assert cut["rest"][2] == "text"
    assert torch.equal(first_samples(Pair(image, weight), 1).image, image[:1])
    assert first_samples((image, index), None) == (image, index)
    assert first_samples(image, 6) is image
