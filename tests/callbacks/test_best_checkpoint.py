"""Which epoch the best checkpoint holds, in real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from equipoise.callbacks import BestCheckpoint

Run = Callable[..., Any]


class Validated(Callback):
    """Reports a given value after each epoch, as a validation would."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.callback_metrics["val/score"] = torch.tensor(self.values[trainer.current_epoch])


@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
@pytest.mark.parametrize(
    ("mode", "values", "epoch"),
    [
        ("max", [0.5, 0.9, 0.7, 0.9, 0.8], 3),
        ("max", [0.9, 0.5, 0.7, 0.8, 0.6], 0),
        ("max", [0.2, 0.3, 0.5, 0.7, 0.9], 4),
        ("max", [0.2, float("nan"), 0.1, 0.1, 0.1], 0),
        ("min", [0.5, 0.2, 0.2, 0.2, 0.4], 3),
    ],
)
def test_the_latest_of_the_best_epochs_is_kept(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path, mode: str, values: list[float],
    epoch: int,
) -> None:  # fmt: skip
    best = BestCheckpoint(
        tmp_path / "saved",
        filename="best",
        monitor="val/score",
        mode=mode,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    callbacks = [Validated(values), best]
    make_trainer(callbacks, enable_checkpointing=True, max_epochs=5).fit(toy(), loader)
    assert [file.name for file in (tmp_path / "saved").iterdir()] == ["best.ckpt"]
    assert torch.load(tmp_path / "saved" / "best.ckpt", weights_only=False)["epoch"] == epoch
