"""The profiler that measures nothing."""

from __future__ import annotations

from typing import Any

from equipoise.callbacks.unprofiled import Unprofiled


def test_training_runs_under_it(make_trainer: Any, toy: Any, loader: Any) -> None:
    trainer = make_trainer([], max_steps=3, profiler=Unprofiled())
    trainer.fit(toy(), loader)
    assert trainer.global_step == 3
    assert isinstance(trainer.profiler, Unprofiled)


def test_nested_actions_share_one_context() -> None:
    profiler = Unprofiled()
    with profiler.profile("outer"), profiler.profile("inner"):
        assert profiler.profile("a") is profiler.profile("b")
