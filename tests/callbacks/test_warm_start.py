"""Starts at the equilibria of the epoch before, in real runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from equipoise.callbacks import ConvergenceMonitor, GradientFidelity, TrainingCurve, WarmStart
from equipoise.equilibrium import Equilibrium, MixedStart, Unrolled
from equipoise.errors import UserError
from tests.callbacks.conftest import BATCH, BATCHES, ToyTask

Run = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")


class Numbered(Dataset[dict[str, Tensor]]):
    """The samples of the toy loader with their index."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.samples = loader.dataset

    def __len__(self) -> int:
        return BATCH * BATCHES

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        x, y = self.samples[row]
        return {"x": x, "y": y, "index": torch.tensor(row)}


class NumberedTask(ToyTask):
    """The toy task on batches that are mappings."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return super().training_step((batch["x"], batch["y"]), batch_idx)

    def evaluate(self, batch: Any, stage: str) -> None:
        super().evaluate((batch["x"], batch["y"]), stage)


@pytest.fixture
def task(toy: Run) -> ToyTask:
    built = toy(optimizer="adam")
    built.__class__ = NumberedTask
    return built


@pytest.fixture
def numbered(loader: DataLoader[Any]) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(5)
    return DataLoader(Numbered(loader), batch_size=BATCH, shuffle=True, generator=generator)


def layer_of(task: ToyTask) -> Equilibrium:
    layer = task.model.equilibrium
    assert isinstance(layer, Equilibrium)
    return layer


def test_evaluations_are_saved_from_the_second_epoch_on(
    task: ToyTask, numbered: DataLoader[Any], make_trainer: Run, rows: Run
) -> None:
    warm = WarmStart()
    callbacks = [TrainingCurve(), ConvergenceMonitor(), warm]
    make_trainer(callbacks, max_epochs=4, log_every_n_steps=BATCHES).fit(task, numbered)
    epochs = warm.summary()["warm_start"]["epochs"]
    assert [epoch["hit_rate"] for epoch in epochs] == [0, 1, 1, 1]
    spent = [epoch["nfe_mean"] for epoch in epochs]
    assert max(spent[2:]) <= 0.7 * spent[0]
    assert [float(row["warm_start/hit_rate"]) for row in rows("warm_start/hit_rate")] == [
        0,
        1,
        1,
        1,
    ]
    assert [float(row["solver/nfe"]) for row in rows("solver/nfe")] == spent
    assert warm.summary()["warm_start"]["samples"] == BATCH * BATCHES
    layer = layer_of(task)
    assert layer.start is None
    assert not layer._forward_hooks


def test_every_solve_ends_within_the_same_tolerance(
    task: ToyTask, numbered: DataLoader[Any], make_trainer: Run
) -> None:
    monitor = ConvergenceMonitor()
    make_trainer([monitor, WarmStart()], max_epochs=3).fit(task, numbered)
    stats = monitor.solver_stats("train")
    assert stats is not None
    assert stats["converged_fraction"] == 1
    assert stats["residual_p95"] <= 1e-3


def test_what_does_not_fit_starts_as_ever_and_is_said_once(
    task: ToyTask, numbered: DataLoader[Any], make_trainer: Run
) -> None:
    row = 6 * 4 / 2**20  # six numbers a sample, in MiB
    warm = WarmStart(memory_mb=25 * row)
    with pytest.warns(UserWarning, match="hold the equilibria of 24 of 48 samples") as caught:
        make_trainer([warm], max_epochs=3).fit(task, numbered)
    assert sum("hold the equilibria" in str(w.message) for w in caught) == 1
    summary = warm.summary()["warm_start"]
    assert [epoch["hit_rate"] for epoch in summary["epochs"]] == [0, 0.5, 0.5]
    assert summary["samples"] == 24
    half = WarmStart(memory_mb=25 * row, storage_dtype="float16")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*hold the equilibria.*")
        make_trainer([half], max_epochs=2, name="half").fit(task, numbered)
    assert half.summary()["warm_start"]["epochs"][1]["hit_rate"] == 1


def test_validations_of_a_run_may_start_warm_too(
    task: ToyTask, numbered: DataLoader[Any], make_trainer: Run
) -> None:
    monitor = ConvergenceMonitor()
    warm = WarmStart(evaluation=True)
    make_trainer([monitor, warm], max_epochs=4).fit(task, numbered, numbered)
    assert {name.split("/")[0] for name in warm.memories} == {"train", "val0"}
    spent = monitor.solver_stats("val")
    make_trainer([monitor], name="test").validate(task, numbered, verbose=False)
    assert spent is not None
    assert spent["nfe_mean"] < monitor.solver_stats("val")["nfe_mean"]  # type: ignore[index]


def test_a_measurement_beside_training_neither_starts_warm_nor_leaves_anything(
    task: ToyTask, numbered: DataLoader[Any], make_trainer: Run
) -> None:
    states = []
    for number, more in enumerate(([], [GradientFidelity(every=1, samples=None)])):
        torch.manual_seed(0)
        numbered.generator.manual_seed(5)  # type: ignore[union-attr]
        built = NumberedTask(type(task.model)(False), "sgd", lambda _: False, lambda _: False)
        make_trainer([WarmStart(), *more], name=f"run{number}").fit(built, numbered)
        states.append(built.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=0)


def test_what_knows_no_samples_is_refused(
    toy: Run, task: ToyTask, loader: DataLoader[Any], numbered: DataLoader[Any], make_trainer: Run
) -> None:
    with pytest.raises(UserError, match="no tensor index"):
        make_trainer([WarmStart()]).fit(toy(), loader)
    layer_of(task).random_start = MixedStart(0.5)
    with pytest.raises(UserError, match=r"equilibrium\.random_start"):
        make_trainer([WarmStart()]).fit(task, numbered)
    with pytest.raises(UserError, match="memory_mb"):
        WarmStart(memory_mb=0)


def test_an_own_iteration_and_a_network_without_equilibrium_are_left_alone(
    toy: Run, task: ToyTask, loader: DataLoader[Any], numbered: DataLoader[Any], make_trainer: Run
) -> None:
    layer_of(task).gradient = Unrolled(steps=3)
    warm = WarmStart()
    make_trainer([warm]).fit(task, numbered)
    assert warm.summary() == {}
    make_trainer([WarmStart()], name="plain").fit(toy(equilibrium=False), loader)


def test_solves_of_other_rows_than_the_batch_are_refused(
    task: ToyTask, numbered: DataLoader[Any], make_trainer: Run
) -> None:
    class Doubled(NumberedTask):
        def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
            twice = {name: torch.cat([part, part]) for name, part in batch.items()}
            return super().training_step(twice, batch_idx)

    task.__class__ = Doubled
    with pytest.raises(UserError, match="one row for each sample"):
        make_trainer([WarmStart()]).fit(task, numbered)
    assert layer_of(task).start is None


def test_a_checkpoint_without_states_starts_the_next_epoch_as_ever(
    task: ToyTask, numbered: DataLoader[Any], make_trainer: Run, tmp_path: Path
) -> None:
    for kept, expected in ((True, 1.0), (False, 0.0)):
        trainer = make_trainer([WarmStart(in_checkpoint=kept)], name=f"first{kept}")
        trainer.fit(task, numbered)
        path = tmp_path / f"{kept}.ckpt"
        trainer.save_checkpoint(path)
        warm = WarmStart(in_checkpoint=kept)
        make_trainer([warm], max_epochs=3, name=f"then{kept}").fit(
            task, numbered, ckpt_path=path, weights_only=True
        )
        assert warm.latest["hit_rate"] == expected
