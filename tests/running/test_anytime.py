"""The anytime curve on a small network, tested by a real Trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from equipoise.callbacks import ConvergenceMonitor
from equipoise.equilibrium import (
    Equilibrium,
    FixedPoint,
    Phantom,
    Reversible,
    State,
    Unrolled,
    with_budget,
)
from equipoise.errors import UserError
from equipoise.report.anytime import Point
from equipoise.running.anytime import AnytimeCurve


class LinearTask(LightningModule):
    """z* = x + 0.5 z*, so z* = 2 x; the loss is the error of the solution.

    bistable: z* = tanh(3 z*) instead, whose solution depends on the start.
    """

    def __init__(self, bistable: bool = False, **layer: Any) -> None:
        super().__init__()
        settings = {"solver": FixedPoint(max_steps=7, tol=1e-2), "gradient": Phantom(), **layer}
        self.layer = Equilibrium(**settings)
        self.bistable = bistable
        self.starts: list[Tensor] = []

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        self.starts.append(z)
        return torch.tanh(3 * z) if self.bistable else x + 0.5 * z

    def test_step(self, batch: Any, batch_idx: int) -> None:
        (x,) = batch
        self.starts = []
        z = self.layer(self.f, torch.ones_like(x), x)
        self.log("test/loss", (z - 2 * x).abs().mean())
        self.log("test/accuracy", ((z - 2 * x).abs() < 0.1).float().mean())


class Numbers(LightningDataModule):
    """Two batches of random numbers."""

    def test_dataloader(self) -> DataLoader[Any]:
        numbers = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(numbers), batch_size=6)


class Witness(Callback):
    """Counts the tests that it sees."""

    def __init__(self) -> None:
        self.tests = 0

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.tests += 1


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def quiet_trainer(callbacks: Sequence[Callback] = ()) -> Trainer:
    return Trainer(
        accelerator="cpu", callbacks=list(callbacks), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def measure(curve: AnytimeCurve, task: LightningModule) -> list[Point]:
    return list(curve.points(quiet_trainer(), task, Numbers()))


def test_every_budget_is_spent_whole_from_every_start() -> None:
    points = measure(AnytimeCurve(budgets=(2, 5, 20)), LinearTask())
    assert [(point.budget, point.start) for point in points] == [
        (2, "zero"), (2, "random"), (5, "zero"), (5, "random"), (20, "zero"), (20, "random"),
    ]  # fmt: skip
    assert [point.nfe for point in points] == [2, 2, 5, 5, 20, 20]
    for start in ("zero", "random"):
        line = [point for point in points if point.start == start]
        losses = [point.metrics["loss"] for point in line]
        residuals = [point.residual_median or 0.0 for point in line]
        assert losses == sorted(losses, reverse=True)
        assert residuals == sorted(residuals, reverse=True)
        assert line[-1].metrics == {"accuracy": 1.0, "loss": pytest.approx(0.0, abs=1e-4)}
        assert all((point.residual_p95 or 0.0) >= (point.residual_median or 0.0) for point in line)


def test_the_error_from_zero_is_that_of_the_iteration() -> None:
    (point,) = measure(AnytimeCurve(budgets=(3,), starts=("zero",)), LinearTask())
    numbers = torch.cat([x for (x,) in Numbers().test_dataloader()])
    # evaluations 1 to 3 are at z = 0, x and 1.5 x; the one of lowest residual is returned
    assert point.metrics["loss"] == pytest.approx(0.5 * float(numbers.abs().mean()), rel=1e-5)
    assert (point.alignment, point.distance) == (None, None)


def test_starts_agree_where_there_is_one_solution_and_differ_where_there_are_two() -> None:
    curve = AnytimeCurve(budgets=(1, 40))
    _, early, _, late = measure(curve, LinearTask())
    assert early.alignment is not None
    assert early.distance is not None
    assert early.distance > 0.5
    assert late.alignment == pytest.approx(1.0, abs=1e-5)
    assert late.distance == pytest.approx(0.0, abs=1e-5)
    model = AnytimeCurve(budgets=(40,), starts=("model", "random"))
    _, other = measure(model, LinearTask(bistable=True))
    assert other.alignment is not None
    assert other.alignment < 0.7


@pytest.mark.parametrize(("start", "sums"), [("model", {3.0}), ("zero", {0.0})])
def test_where_a_solve_starts(start: Any, sums: set[float]) -> None:
    task = LinearTask()
    measure(AnytimeCurve(budgets=(2,), starts=(start,)), task)
    assert set(task.starts[0].sum(dim=1).tolist()) == sums


def test_the_random_start_is_the_same_for_every_budget_and_follows_the_seed() -> None:
    first = []
    for budget, seed in ((2, 0), (4, 0), (2, 1)):
        task = LinearTask()
        measure(AnytimeCurve(budgets=(budget,), starts=("random",), seed=seed), task)
        first.append(task.starts[0])
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_layers_trainer_and_callbacks_are_as_before() -> None:
    def start(z0: State) -> State:
        return z0

    task = LinearTask(eval_solver=FixedPoint(max_steps=3))
    task.layer.start = start
    before = (task.layer.solver, task.layer.eval_solver, task.layer.gradient, start)
    witness = Witness()
    trainer = quiet_trainer([witness])
    callbacks = list(trainer.callbacks)  # type: ignore[attr-defined]
    points = AnytimeCurve(budgets=(2, 3)).points(trainer, task, Numbers())
    next(points)
    points.close()  # as an interruption does
    layer = task.layer
    assert (layer.solver, layer.eval_solver, layer.gradient, layer.start) == before
    assert trainer.callbacks == callbacks  # type: ignore[attr-defined]
    assert not layer._forward_hooks
    trainer.test(task, datamodule=Numbers(), verbose=False)
    assert witness.tests == 1


def test_an_error_in_the_middle_puts_everything_back() -> None:
    task = LinearTask()
    task.f = lambda z, x: z[:, :1]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="of the shape that it takes"):
        measure(AnytimeCurve(budgets=(2,)), task)
    assert task.layer.eval_solver is None
    assert task.layer.start is None


@pytest.mark.parametrize(
    ("gradient", "budget", "steps"),
    [(Unrolled(steps=3), 12, 12), (Reversible(steps=3), 12, 6), (Reversible(), 1, 1)],
)
def test_an_iteration_of_its_own_gets_the_budget(gradient: Any, budget: int, steps: int) -> None:
    assert with_budget(gradient, budget).steps == steps  # type: ignore[attr-defined]
    (point,) = measure(
        AnytimeCurve(budgets=(budget,), starts=("zero",)), LinearTask(gradient=gradient)
    )
    assert point.nfe == max(budget, 2 if isinstance(gradient, Reversible) else 1)


def test_a_network_without_a_layer_is_refused() -> None:
    class Plain(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1, 1)

    with pytest.raises(UserError, match="needs a network with an equilibrium layer"):
        measure(AnytimeCurve(), Plain())


@pytest.mark.parametrize(
    "wrong", [{"budgets": ()}, {"budgets": (0, 4)}, {"starts": ()}, {"starts": ("one",)}]
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"anytime\."):
        AnytimeCurve(**wrong)


def test_it_knows_its_length_and_a_point_its_row() -> None:
    assert len(AnytimeCurve()) == 18
    (point,) = measure(AnytimeCurve(budgets=(4,), starts=("model",)), LinearTask())
    row = point.row()
    assert list(row)[:4] == ["start", "budget", "accuracy", "loss"]
    assert row["residual_median"] == point.residual_median
    assert "metrics" not in row


def test_the_statistics_of_the_plain_test_are_not_touched() -> None:
    monitor = ConvergenceMonitor()
    trainer, task = quiet_trainer([monitor]), LinearTask()
    trainer.test(task, datamodule=Numbers(), verbose=False)
    before = monitor.solver_stats("test")
    list(AnytimeCurve(budgets=(2,)).points(trainer, task, Numbers()))
    assert monitor.solver_stats("test") == before
