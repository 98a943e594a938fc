"""Couplings: both losses, scores of a whole split, what is written and drawn, and the labels."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, distributed, multiprocessing, nn
from torch.utils.data import DataLoader

from equipoise.data.molecules.tables import TYPES
from equipoise.errors import UserError
from equipoise.report.couplings import YARDSTICKS
from equipoise.tasks import ScalarCoupling, scalar_coupling
from equipoise.tasks.scalar_coupling import FLOOR, coupling_loss, of_all_processes
from equipoise.tasks.schedules import Constant

Batch = dict[str, Tensor]
MEANS = [100.0, 40.0, -2.0, -10.0, 1.0, 4.0, 5.0, math.nan]
"""Of the training molecules, which have no 3JHN."""


class Output(NamedTuple):
    standardized: Tensor


class FromDistance(nn.Module):
    """A multiple of the distance for each of K numbers."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.linspace(0.5, -0.3, outputs))

    def forward(self, batch: Batch) -> Output:
        return Output(batch["squared_distance"].unsqueeze(-1) * self.factor)


class Molecules(LightningDataModule):
    """Batches for every stage, with labels."""

    def __init__(self, batches: Sequence[Batch], **told: Any) -> None:
        super().__init__()
        self.loader = DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]
        self.told = told
        self.labels: dict[str, Any] = {"pair": ["1JHC", "2JHH"], "mean": {"1JHC": [95.1]}}

    def train_dataloader(self) -> Any:
        return self.loader

    def val_dataloader(self) -> Any:
        return self.loader

    def test_dataloader(self) -> Any:
        return self.loader

    def facts(self, split: str) -> dict[str, Any]:
        return {"split": split, **self.told}

    def vocabulary_state(self) -> dict[str, Any]:
        return self.labels

    def type_means(self) -> list[float]:
        return MEANS


def molecules(rows: Sequence[Sequence[int]], outputs: int = 1, seed: int = 0) -> Batch:
    """A molecule for each list of rows of the csv, with a pair that is not asked for behind them.

    The same row has the same numbers everywhere; types go around, without 2JHN.
    """
    random = torch.Generator().manual_seed(seed)
    numbers = torch.randn(100, 3, outputs, generator=random)
    most = 1 + max(map(len, rows))
    row = torch.tensor([[*one, *[-1] * (most - len(one))] for one in rows])
    kind = torch.where(row < 0, 0, torch.tensor([1, 2, 3, 4, 6, 7])[row % 6])
    coupling, mean, deviation = numbers[row].unbind(dim=2)
    asked = (kind > 0).unsqueeze(-1)
    return {
        "row": row, "type": kind, "squared_distance": numbers[row, 0, 0].abs() + 1,
        "coupling": torch.where(asked, 20 * coupling, 0),
        "mean": torch.where(asked, mean, 0),
        "deviation": torch.where(asked, deviation.abs() + 0.5, 1),
    }  # fmt: skip


def task_of(model: nn.Module, **settings: Any) -> ScalarCoupling:
    return ScalarCoupling(model, partial(torch.optim.SGD, lr=0.1), Constant(), **settings)


def trainer_in(folder: Path, **settings: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, max_steps=1, num_sanity_val_steps=0,
        **settings,
    )  # fmt: skip


def errors(batch: Batch, model: nn.Module, number: int = 0) -> dict[int, list[float]]:
    """|deviation * output + mean - coupling| of one of the K numbers, by type, pair by pair."""
    standardized, found = model(batch).standardized, {}
    for b, p in (batch["type"] > 0).nonzero().tolist():
        scale, shift, true = (
            batch[name][b, p, number] for name in ("deviation", "mean", "coupling")
        )
        error = abs(float(standardized[b, p, number] * scale + shift - true))
        found.setdefault(int(batch["type"][b, p]), []).append(error)
    return found


def by_hand(batch: Batch, model: nn.Module, loss: str, number: int = 0) -> float:
    of_types = list(errors(batch, model, number).values())
    if loss == "absolute":
        return float(np.mean([error for each in of_types for error in each]))
    return float(np.mean([math.log(np.mean(each) + 1e-9) for each in of_types]))


@pytest.mark.parametrize("loss", ["absolute", "log_mae"])
def test_it_is_trained_by_the_errors_in_hertz(loss: Any) -> None:
    batch, model = molecules([range(7), range(20, 33), [40]]), FromDistance()
    found = task_of(model, loss=loss).training_step(batch, 0)
    assert set(found) == {"loss", "coupling_loss"}
    assert found["loss"].item() == pytest.approx(by_hand(batch, model, loss), rel=1e-5)
    assert found["coupling_loss"].item() == found["loss"].item()


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("loss", ["absolute", "log_mae"])
def test_contributions_add_the_mean_of_their_losses(loss: Any, weight: float) -> None:
    batch, model = molecules([range(7), [9, 13]], outputs=5), FromDistance(5)
    task = task_of(model, loss=loss, contribution_weight=weight)
    found = task.training_step(batch, 0)
    parts = [by_hand(batch, model, loss, number) for number in range(1, 5)]
    own = by_hand(batch, model, loss)
    assert found["contribution_loss"].item() == pytest.approx(np.mean(parts), rel=1e-5)
    assert found["coupling_loss"].item() == pytest.approx(own, rel=1e-5)
    assert found["loss"].item() == pytest.approx(own + weight * np.mean(parts), rel=1e-5)
    found["loss"].backward()
    assert model.factor.grad is not None
    assert model.factor.grad[1:].any() == bool(weight)


@given(
    kinds=st.lists(st.integers(1, 8), max_size=12), loss=st.sampled_from(["absolute", "log_mae"])
)
def test_any_couplings_have_a_finite_loss_and_gradient(kinds: list[int], loss: Any) -> None:
    """None at all, one alone, types that are absent."""
    kind, true = torch.tensor(kinds, dtype=torch.int64), torch.zeros(len(kinds))
    predicted = torch.linspace(1, 2, len(kinds)).requires_grad_()
    value = coupling_loss(predicted, true, kind, loss)
    value.backward()
    assert value.isfinite()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()
    assert predicted.grad.all()
    if not kinds:
        assert value == 0


def test_exact_predictions_have_the_floor() -> None:
    exact = torch.tensor([1.0, 2.0]).requires_grad_()
    value = coupling_loss(exact, exact.detach(), torch.tensor([1, 8]), "log_mae")
    assert value.item() == pytest.approx(math.log(FLOOR)) == pytest.approx(-20.7232658)


def test_a_regulariser_that_reads_states_is_refused() -> None:
    task = task_of(FromDistance())
    with pytest.raises(UserError, match="regularizer=correction needs a network with one equilib"):
        task.readout(torch.zeros(1))


@pytest.mark.parametrize("loss", ["absolute", "log_mae"])
@pytest.mark.parametrize("stage", ["val", "test"])
def test_it_is_judged_on_the_whole_split_each_coupling_once(
    stage: str, loss: Any, tmp_path: Path
) -> None:
    model, trainer = FromDistance(), trainer_in(tmp_path)
    task = task_of(model, loss=loss)
    data = Molecules([molecules([range(9)]), molecules([range(9, 30), [3]]), molecules([[31, 5]])])
    {"val": trainer.validate, "test": trainer.test}[stage](task, data, verbose=False)
    whole = molecules([[*range(30), 31]])
    expected = {
        "loss": by_hand(whole, model, loss),
        "mae": by_hand(whole, model, "absolute"),
        "mean_log_mae": by_hand(whole, model, "log_mae"),
    }
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert found == pytest.approx({f"{stage}/{n}": v for n, v in expected.items()}, rel=1e-5)
    assert set(found) == task.logged(stage)
    assert task.seen[stage] == []


def test_a_second_split_starts_anew(tmp_path: Path) -> None:
    task, trainer = task_of(FromDistance()), trainer_in(tmp_path)
    trainer.test(task, Molecules([molecules([range(9)])]), verbose=False)
    trainer.test(task, Molecules([molecules([range(20, 24)])]), verbose=False)
    assert task.tested is not None
    assert task.tested.row.tolist() == [20, 21, 22, 23]


def test_what_two_processes_have_predicted_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    other = (np.array([3, 0]), np.array([8, 1]), np.array([[3.5], [0.5]]), np.array([[3], [0]]))
    monkeypatch.setattr(scalar_coupling, "from_all_processes", lambda mine: [mine, other])
    mine = (torch.tensor([1, 3]), torch.tensor([2, 8]), torch.tensor([[1.5], [3.5]]))
    found = of_all_processes([(*mine, torch.tensor([[1.0], [3.0]]))])
    assert found.row.tolist() == [0, 1, 3]
    assert found.kind.tolist() == [1, 2, 8]
    assert found.predicted.tolist() == [[0.5], [1.5], [3.5]]
    assert found.true.tolist() == [[0], [1], [3]]


def work(rank: int, folder: str) -> None:
    """One of two processes, with couplings that the other has, too."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    task = task_of(FromDistance(5))
    parts = [[range(12)], [range(8, 20), [30]]]
    with torch.no_grad():
        task.test_step(molecules(parts[rank], outputs=5), 0)
    torch.save(dict(of_all_processes(task.seen["test"])._asdict()), f"{folder}/{rank}.pt")
    distributed.barrier()  # a process that leaves first would cut the other's connection
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_judge_every_coupling_once(tmp_path: Path) -> None:
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    task = task_of(FromDistance(5))
    with torch.no_grad():
        task.test_step(molecules([[*range(20), 30]], outputs=5), 0)
    expected = of_all_processes(task.seen["test"])
    assert expected.row.tolist() == [*range(20), 30]
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        for name, array in expected._asdict().items():
            np.testing.assert_allclose(found[name], array, rtol=1e-6, err_msg=name)


def after_a_test(tmp_path: Path, batch: Batch, outputs: int = 1, **told: Any) -> ScalarCoupling:
    task = task_of(FromDistance(outputs))
    trainer_in(tmp_path).test(task, Molecules([batch], **told), verbose=False)
    return task


def test_the_score_of_each_type_stands_beside_that_of_its_mean(tmp_path: Path) -> None:
    batch = molecules([range(13)])
    task = after_a_test(tmp_path, batch)
    details, of_types = task.details(), errors(batch, task.model)
    assert details["split"] == "test"
    assert list(details["types"]) == ["1JHC", "1JHN", "2JHC", "2JHH", "3JHC", "3JHH"]
    logarithms = []
    for name, score in details["types"].items():
        kind = TYPES.index(name) + 1
        true = batch["coupling"][batch["type"] == kind][:, 0]
        mae = np.mean(of_types[kind])
        assert score["count"] == len(true)
        assert score["mae"] == pytest.approx(mae, rel=1e-5)
        assert score["log_mae"] == pytest.approx(math.log(mae), rel=1e-5)
        of_mean = float((true - MEANS[kind - 1]).abs().mean())
        assert score["mae_of_the_mean"] == pytest.approx(of_mean, rel=1e-5)
        logarithms.append(math.log(of_mean))
    assert details["mean_log_mae_of_the_means"] == pytest.approx(np.mean(logarithms), rel=1e-5)
    assert "yardsticks" not in details
    assert "mae_of_contributions" not in details


def test_a_type_that_training_has_none_of_has_no_mean(tmp_path: Path) -> None:
    batch = molecules([range(4)])
    batch["type"][0, 0] = 8
    details = after_a_test(tmp_path, batch).details()
    assert math.isnan(details["types"]["3JHN"]["mae_of_the_mean"])
    assert details["types"]["3JHN"]["mae"] > 0
    assert math.isnan(details["mean_log_mae_of_the_means"])


def test_contributions_have_errors_of_their_own(tmp_path: Path) -> None:
    batch = molecules([range(9)], outputs=5)
    task = after_a_test(tmp_path, batch, outputs=5)
    found = task.details()["mae_of_contributions"]
    expected = [by_hand(batch, task.model, "absolute", number) for number in range(1, 5)]
    assert list(found) == ["fc", "sd", "pso", "dso"]
    assert list(found.values()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("competition", [True, False])
def test_yardsticks_stand_beside_results_on_the_competition_alone(
    competition: bool, tmp_path: Path
) -> None:
    details = after_a_test(tmp_path, molecules([range(9)]), competition=competition).details()
    assert details.get("yardsticks") == (YARDSTICKS if competition else None)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_predictions_are_written_and_drawn(tmp_path: Path) -> None:
    assert task_of(FromDistance()).pictures(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    task = after_a_test(tmp_path, molecules([[8, 2, 0], [5, 3]]))
    folder = tmp_path / "report"
    (picture,) = task.pictures(folder)
    assert (folder / picture.file).is_file()
    assert "of the test molecules by type" in picture.caption
    found, submission = rows_of(folder / "couplings.csv"), rows_of(folder / "predictions.csv")
    assert [row["id"] for row in found] == ["0", "2", "3", "5", "8"]
    assert [row["type"] for row in found] == ["1JHC", "2JHC", "2JHH", "3JHH", "2JHC"]
    assert list(submission[0]) == ["id", "scalar_coupling_constant"]
    assert task.tested is not None
    for row, written, true, predicted in zip(
        found, submission, task.tested.true[:, 0], task.tested.predicted[:, 0], strict=True
    ):
        assert float(row["scalar_coupling_constant"]) == true
        assert float(row["predicted"]) == predicted == float(written["scalar_coupling_constant"])
        assert row["id"] == written["id"]


def test_one_coupling_and_predictions_that_are_no_numbers_are_drawn(tmp_path: Path) -> None:
    (picture,) = after_a_test(tmp_path, molecules([[4]])).pictures(tmp_path / "one")
    assert (tmp_path / "one" / picture.file).is_file()
    task = task_of(FromDistance())
    batch = molecules([range(9)])
    batch["squared_distance"][0, 1] = torch.nan
    batch["squared_distance"][0, 4] = torch.inf
    trainer_in(tmp_path).test(task, Molecules([batch]), verbose=False)
    (picture,) = task.pictures(tmp_path / "odd")
    assert (tmp_path / "odd" / picture.file).is_file()


def test_labels_go_with_the_weights_and_other_labels_are_refused(tmp_path: Path) -> None:
    data = Molecules([molecules([range(4)])])
    trained, trainer = task_of(FromDistance()), trainer_in(tmp_path)
    trainer.fit(trained, data)
    state = trained.state_dict()
    assert state["_extra_state"] == {"labels": data.labels}

    def read(labels: dict[str, Any], stage: str) -> None:
        task, other = task_of(FromDistance()), Molecules([molecules([range(4)])])
        other.labels = labels
        task.load_state_dict(state)
        getattr(trainer_in(tmp_path), stage)(task, other)

    for stage in ("fit", "validate", "test"):
        read(data.labels, stage)
        for changed in ({**data.labels, "pair": ["1JHC"]}, {**data.labels, "mean": {}}):
            with pytest.raises(UserError, match="the checkpoint was trained on other molecules"):
                read(changed, stage)
