"""Which part Lightning's actions belong to, and steps that are timed and plain in turn."""

from __future__ import annotations

from typing import Any

import pytest

from equipoise.callbacks.lightning_overhead import Observer
from equipoise.callbacks.step_profiler import PARTS_OF_HOOKS, StepProfiler, part_of
from equipoise.equilibrium.timing import EVALUATIONS, PARTS, PRODUCTS
from equipoise.report.step_parts import (
    BACKWARD,
    CALLBACKS,
    DATA,
    FORWARD,
    LOOP,
    OPTIMISER,
    SHADES,
)


@pytest.mark.parametrize(
    ("action", "part"),
    [
        ("[_TrainingEpochLoop].train_dataloader_next", DATA),
        ("[Strategy]SingleDeviceStrategy.batch_to_device", DATA),
        ("[LightningModule]Classification.transfer_batch_to_device", DATA),
        ("[Strategy]SingleDeviceStrategy.training_step", FORWARD),
        ("[Strategy]DDPStrategy.backward", BACKWARD),
        ("[LightningModule]Classification.optimizer_step", OPTIMISER),
        ("[LightningModule]Classification.configure_gradient_clipping", OPTIMISER),
        ("[LightningModule]Classification.on_train_batch_end", CALLBACKS),
        ("[Callback]Observers.on_before_optimizer_step", CALLBACKS),
        ("run_training_batch", None),
        ("save_checkpoint", None),
    ],
)
def test_the_part_of_an_action(action: str, part: str | None) -> None:
    assert part_of(action) == part


def test_every_part_has_a_place_in_the_picture() -> None:
    assert set(SHADES) == {*PARTS, *PARTS_OF_HOOKS.values(), CALLBACKS, LOOP}


class Waiting(Observer):
    """Counts steps, and notes whether the clock ran in them."""

    def __init__(self) -> None:
        self.running: list[bool] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.running.append(trainer.profiler.clock.running)


@pytest.mark.parametrize("min_steps", [None, 1000])
def test_timed_and_plain_steps_take_turns_and_the_run_ends(
    min_steps: int | None, make_trainer: Any, toy: Any, loader: Any
) -> None:
    watched = Waiting()
    trainer = make_trainer([watched], max_epochs=1000, min_steps=min_steps)
    profiler = StepProfiler(trainer, steps=4, warm_up=3)
    profiler.install()
    trainer.fit(toy(), loader, loader)
    times = profiler.times
    assert watched.running[:11] == [False] * 3 + [True, False] * 4
    assert len(watched.running) == 12  # the request that ends the run has a batch of its own
    assert len(times.timed) == len(times.plain) == len(times.parts) == 4
    for parts, whole in zip(times.parts, times.timed, strict=True):
        assert sum(parts.values()) == pytest.approx(whole)
        assert {EVALUATIONS, PRODUCTS, DATA, FORWARD, BACKWARD, OPTIMISER} <= set(parts)


def test_a_run_that_ends_by_itself_closes_its_last_step(
    make_trainer: Any, toy: Any, loader: Any
) -> None:
    trainer = make_trainer([], max_steps=4)
    profiler = StepProfiler(trainer, steps=9, warm_up=1)
    profiler.install()
    trainer.fit(toy(), loader)
    assert (len(profiler.times.timed), len(profiler.times.plain)) == (2, 1)
