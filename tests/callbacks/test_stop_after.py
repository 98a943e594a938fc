"""A run that ends early, with the schedule of the whole run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.callbacks import GracefulInterrupt, StopAfter
from equipoise.callbacks.graceful_interrupt import SIGNALS
from equipoise.errors import RunInterrupted

Run = Callable[..., Any]


def test_the_run_is_saved_after_those_steps_and_ends(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    callbacks = [GracefulInterrupt(tmp_path), StopAfter(3)]
    with pytest.raises(RunInterrupted, match="Interrupted after step 3") as stop:
        make_trainer(callbacks, enable_checkpointing=True).fit(toy(), loader)
    assert stop.value.number == SIGNALS[0]
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert saved["global_step"] == 3


def test_batches_that_are_accumulated_belong_to_their_step(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    task = toy()
    trainer = make_trainer(
        [GracefulInterrupt(tmp_path), StopAfter(2)], enable_checkpointing=True,
        accumulate_grad_batches=2,
    )  # fmt: skip
    with pytest.raises(RunInterrupted, match="after step 2"):
        trainer.fit(task, loader)
    assert len(task.losses) == 4


def test_without_the_callback_that_saves_the_training_ends(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    trainer = make_trainer([StopAfter(3)])
    trainer.fit(toy(), loader)
    assert trainer.global_step == 3


def test_a_run_of_fewer_steps_goes_to_its_end(toy: Run, loader: Any, make_trainer: Run) -> None:
    trainer = make_trainer([StopAfter(100)], max_epochs=1)
    trainer.fit(toy(), loader)
    assert trainer.global_step == 6


def test_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="steps must be 1 or more, got 0"):
        StopAfter(0)
