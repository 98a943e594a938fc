"""Real signals in real runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from equipoise.callbacks import DivergenceGuard, GracefulInterrupt, TrainingCurve
from equipoise.callbacks.graceful_interrupt import SIGNALS
from equipoise.errors import RunInterrupted

Run = Callable[..., Any]


class SignalAt(Callback):
    """Sends signals to this process at the start of the batch of some optimiser step."""

    def __init__(self, step: int, *numbers: signal.Signals) -> None:
        self.step = step
        self.numbers = numbers

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            for number in self.numbers:
                os.kill(os.getpid(), number)
                time.sleep(0.2)  # two pending signals of one kind count as one


class CountSteps(Callback):
    """A callback with a state of its own that changes in the last hook of a step."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.steps = state_dict["steps"]


@pytest.mark.parametrize("number", SIGNALS)
def test_the_step_is_finished_and_saved(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path, number: signal.Signals, capfd: Any
) -> None:
    before = [signal.getsignal(n) for n in SIGNALS]
    callbacks = [GracefulInterrupt(tmp_path), SignalAt(3, number), CountSteps(), DivergenceGuard()]
    trainer = make_trainer(callbacks, enable_checkpointing=True)
    with pytest.raises(RunInterrupted, match="after step 4") as stop:
        trainer.fit(toy(), loader)
    assert stop.value.status == 128 + number
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert saved["callbacks"]["CountSteps"] == {"steps": 4}
    name = "interrupt" if number == signal.SIGINT else number.name
    assert f"{name}: finishing this step and saving" in capfd.readouterr().err
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_an_interrupted_run_continues_where_it_stopped(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    whole = toy()
    make_trainer([]).fit(whole, loader)
    torch.manual_seed(5)
    callbacks = [SignalAt(5, signal.SIGINT), GracefulInterrupt(tmp_path)]
    with pytest.raises(RunInterrupted):
        make_trainer(callbacks, enable_checkpointing=True).fit(toy(), loader)
    resumed, count = toy(), CountSteps()
    trainer = make_trainer([count], name="resumed")
    trainer.fit(resumed, loader, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert (trainer.global_step, count.steps) == (12, 6)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def test_the_curve_of_an_interrupted_run_is_kept(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path, rows: Run
) -> None:
    curve = TrainingCurve()
    callbacks = [curve, SignalAt(2, signal.SIGINT), GracefulInterrupt(tmp_path)]
    trainer = make_trainer(callbacks, enable_checkpointing=True, log_every_n_steps=50)
    with pytest.raises(RunInterrupted):
        trainer.fit(toy(), loader)
    assert [int(row["step"]) for row in rows("train/loss")] == [3]
    assert curve.latest["loss"] == pytest.approx(float(rows("train/loss")[0]["train/loss"]))


def test_a_second_signal_does_what_it_does_by_default(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    callbacks = [SignalAt(2, signal.SIGINT, signal.SIGINT), GracefulInterrupt(tmp_path)]
    trainer = make_trainer(callbacks, enable_checkpointing=True)
    # A test run in a shell's background ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(SystemExit):  # Lightning's answer to KeyboardInterrupt
        trainer.fit(toy(), loader)
    assert trainer.global_step == 2
    assert not (tmp_path / "last.ckpt").exists()


def test_a_signal_during_validation_stops_at_the_end_of_the_epoch(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    class InValidation(Callback):
        def on_validation_start(self, *_: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer = make_trainer([InValidation(), GracefulInterrupt(tmp_path)], enable_checkpointing=True)
    with pytest.raises(RunInterrupted, match="after step 6"):
        trainer.fit(toy(), loader, loader)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 6


def test_handlers_are_given_back_after_a_whole_run(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    trainer = make_trainer([GracefulInterrupt(tmp_path)], enable_checkpointing=True, max_epochs=1)
    trainer.fit(toy(), loader)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_within_an_accumulation_waits_for_the_step(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    class InTheMiddle(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, number: int) -> None:
            if number == 3:
                os.kill(os.getpid(), signal.SIGINT)

    callbacks = [InTheMiddle(), GracefulInterrupt(tmp_path)]
    trainer = make_trainer(callbacks, enable_checkpointing=True, accumulate_grad_batches=3)
    with pytest.raises(RunInterrupted, match="after step 2"):
        trainer.fit(toy(), loader)
    assert trainer.fit_loop.total_batch_idx == 5
