"""The training curve in real runs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from torch.utils.data import DataLoader

from equipoise.callbacks import ConvergenceMonitor, LearningRate, TrainingCurve

Run = Callable[..., Any]


def test_rows_are_the_means_since_the_row_before(
    toy: Run, loader: Any, make_trainer: Run, rows: Run
) -> None:
    task = toy()
    make_trainer([TrainingCurve()], log_every_n_steps=4).fit(task, loader)
    found = rows("train/loss")
    # 6 steps an epoch: at step 4, at the end of the epoch, at 8, at 12 (which ends the run)
    assert [int(row["step"]) for row in found] == [4, 6, 8, 12]
    assert [int(row["epoch"]) for row in found] == [0, 0, 1, 1]
    groups = [task.losses[:4], task.losses[4:6], task.losses[6:8], task.losses[8:12]]
    for row, losses in zip(found, groups, strict=True):
        assert float(row["train/loss"]) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"log_every_n_steps": 5}, [6, 12]),  # not 5 and 10, which leave 1 and 2 of 6
        ({"log_every_n_steps": 1}, list(range(1, 13))),
        ({"log_every_n_steps": 50}, [6, 12]),
        ({"log_every_n_steps": 4, "max_steps": 9}, [4, 6, 9]),  # nor 8, where 9 ends the run
        ({"log_every_n_steps": 2, "accumulate_grad_batches": 2}, [2, 3, 4, 6]),
    ],
)
def test_no_row_is_the_mean_of_the_few_batches_that_an_epoch_has_left(
    toy: Run, loader: Any, make_trainer: Run, rows: Run, options: dict[str, int], steps: list[int]
) -> None:
    make_trainer([TrainingCurve()], **options).fit(toy(), loader)
    assert [int(row["step"]) for row in rows("train/loss")] == steps


def test_latest_is_the_mean_of_the_last_epoch(toy: Run, loader: Any, make_trainer: Run) -> None:
    task, curve = toy(), TrainingCurve()
    make_trainer([curve], log_every_n_steps=4).fit(task, loader)
    assert curve.latest["loss"] == pytest.approx(sum(task.losses[6:]) / 6, rel=1e-5)
    assert 0 <= curve.latest["accuracy"] <= 1


def test_accumulated_batches_keep_their_own_loss(
    toy: Run, loader: Any, make_trainer: Run, rows: Run
) -> None:
    task = toy()
    trainer = make_trainer(
        [TrainingCurve()], log_every_n_steps=1, max_epochs=1, accumulate_grad_batches=3
    )
    trainer.fit(task, loader)
    found = rows("train/loss")
    assert [int(row["step"]) for row in found] == [1, 2]
    assert float(found[0]["train/loss"]) == pytest.approx(sum(task.losses[:3]) / 3, rel=1e-5)


def test_one_row_a_step_for_all_sources_on_disk_while_training(
    toy: Run, loader: Any, make_trainer: Run, rows: Run
) -> None:
    class Reader(Callback):
        def __init__(self) -> None:
            self.seen: list[int] = []

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            self.seen.append(len(rows()) if trainer.global_step >= 3 else 0)

    reader = Reader()
    callbacks = [TrainingCurve(), ConvergenceMonitor(), reader]
    make_trainer(callbacks, log_every_n_steps=3).fit(toy(), loader)
    assert reader.seen == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    found = rows()
    assert [int(row["step"]) for row in found] == [3, 6, 9, 12]
    assert all(row["train/loss"] and row["solver/nfe"] for row in found)


@pytest.mark.parametrize("kind", ["tensorboard", "wandb", "both"])
def test_other_loggers_take_the_rows(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path, kind: str, monkeypatch: Any
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    loggers: list[Any] = []
    if kind in ("tensorboard", "both"):
        loggers.append(TensorBoardLogger(tmp_path, name="board", version=""))
    if kind in ("wandb", "both"):
        loggers.append(WandbLogger(project="toy", save_dir=tmp_path, offline=True))
    if kind == "both":
        loggers.append(CSVLogger(tmp_path, name="run", version=""))
    trainer = make_trainer([TrainingCurve(), ConvergenceMonitor()], logger=loggers, max_epochs=1)
    trainer.fit(toy(), loader)
    if kind in ("wandb", "both"):
        import wandb

        summary = dict(wandb.run.summary) if wandb.run is not None else {}
        wandb.finish()
        assert summary["gradient"] == "phantom"
        assert summary["trainer/global_step"] == 6
    if kind in ("tensorboard", "both"):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        board = EventAccumulator(str(tmp_path / "board")).Reload()
        assert [event.step for event in board.Scalars("train/loss")] == [2, 4, 6]
        assert "gradient" not in board.Tags()["scalars"]


def test_a_run_without_logger_still_knows_its_epoch(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    curve = TrainingCurve()
    make_trainer([curve], logger=False, max_epochs=1).fit(toy(), loader)
    assert set(curve.latest) == {"loss", "accuracy"}


class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, _):
        return {"loss": self.layer(batch).square().mean()}

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        halved = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": halved, "interval": "step"}}


def test_a_row_shows_the_rate_that_its_step_used(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    Trainer(
        max_epochs=1, logger=logger, log_every_n_steps=1, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, accelerator="cpu",
        callbacks=[TrainingCurve(), LearningRate()],
    ).fit(Line(), DataLoader(torch.ones(3, 1)))  # fmt: skip
    with (tmp_path / "metrics.csv").open() as file:
        rates = [float(row["lr-SGD"]) for row in csv.DictReader(file)]
    assert rates == [0.1, 0.05, 0.025]
