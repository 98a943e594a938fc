"""Early stopping judges each validation once, and keeps the configured patience."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from equipoise.callbacks import EarlyStopping

Run = Callable[..., Any]


class Worsening(Callback):
    """Makes every validation worse than the one before."""

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("val/fall", float(-trainer.current_epoch))


def stopping(**settings: Any) -> EarlyStopping:
    return EarlyStopping(monitor="val/fall", mode="max", **settings)


def test_a_run_ends_after_its_patience(toy: Run, loader: Any, make_trainer: Run) -> None:
    trainer = make_trainer([Worsening(), stopping(patience=2)], max_epochs=9)
    trainer.fit(toy(), loader, loader)
    assert trainer.current_epoch == 3


@pytest.mark.parametrize("patience", [2, 4])
def test_a_run_that_stops_within_an_epoch_loses_none_of_it(
    toy: Run, loader: Any, make_trainer: Run, patience: int, tmp_path: Any
) -> None:
    """`max_steps` ends the first part two batches into the third epoch."""
    first = stopping(patience=3)
    trainer = make_trainer([Worsening(), first], max_steps=14, max_epochs=-1)
    trainer.fit(toy(), loader, loader)
    assert first.wait_count == 1
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    second = stopping(patience=patience)
    state = torch.load(tmp_path / "part.ckpt", weights_only=True)["callbacks"][second.state_key]
    second.load_state_dict(state)
    assert (second.patience, second.wait_count) == (patience, 1)
    whole = make_trainer([Worsening(), second], max_epochs=9)
    whole.fit(toy(), loader, loader)
    # it waits for one validation less than it would anew
    assert whole.current_epoch == patience - 1


def test_metrics_of_training_are_judged_at_the_end_of_each_epoch(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    class Falling(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            pl_module.log("train/fall", 1.0)

    callback = EarlyStopping(monitor="train/fall", mode="min", patience=2)
    trainer = make_trainer([Falling(), callback], max_epochs=9)
    trainer.fit(toy(), loader)
    assert trainer.current_epoch == 3
