"""What metrics.csv leaves empty."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule

from equipoise.callbacks import CurveLogger, TrainingCurve
from equipoise.config.compose import compose, plain
from equipoise.running.build import instantiate


def chosen_logger(folder: Path) -> CurveLogger:
    """The logger that runs have by default."""
    config = plain(compose([f"run_dir={folder}"]).config, resolve=True)
    logger: CurveLogger = instantiate("logger.csv", config["logger"]["csv"])
    return logger


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("missing", [float("nan"), torch.tensor(torch.nan)])
def test_what_is_not_a_number_is_left_empty(tmp_path: Path, missing: Any) -> None:
    logger = chosen_logger(tmp_path)
    logger.log_metrics({"loss": 0.5, "miou": missing, "gradient": "phantom", "epoch": 0}, 1)
    logger.log_metrics({"loss": float("inf"), "miou": torch.tensor(0.25), "epoch": 1}, 2)
    logger.save()
    first, second = rows(tmp_path)
    assert first == {"loss": "0.5", "miou": "", "gradient": "phantom", "epoch": "0", "step": "1"}
    assert second == {"loss": "inf", "miou": "0.25", "gradient": "", "epoch": "1", "step": "2"}


class Undefined(LightningModule):
    """A task whose losses are never numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: torch.Tensor, index: int) -> dict[str, torch.Tensor]:
        return {"loss": self.scale * torch.nan, "accuracy": torch.tensor(0.5)}

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("val/loss", torch.tensor(torch.nan), batch_size=2)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_neither_training_nor_validation_writes_nan(
    tmp_path: Path, make_trainer: Callable[..., Any]
) -> None:
    batches = torch.utils.data.DataLoader(range(4), batch_size=2)
    trainer = make_trainer([TrainingCurve()], logger=chosen_logger(tmp_path), max_epochs=1)
    trainer.fit(Undefined(), batches, batches)
    found = rows(tmp_path)
    assert [row["train/accuracy"] for row in found if row["train/accuracy"]] == ["0.5"]
    assert all(value != "nan" for row in found for value in row.values())
