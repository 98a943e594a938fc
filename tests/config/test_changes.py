"""A resumed run tells what it changes, and refuses what would change nothing."""

from __future__ import annotations

import pytest

from equipoise.config.changes import described
from equipoise.config.recompose import recompose
from equipoise.config.stored import Stored
from equipoise.errors import UserError
from tests.config.test_recompose import again, stored

TWO = "[{start: 0, gradient: jfb}, {start: 0.5, gradient: exact, max_steps: 9}]"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ((), ""),
        (("optimizer.lr=1e-5",), "optimizer.lr=1e-05 (was 0.0045)"),
        (("optimizer.lr=0.0045", "schedule=cosine"), ""),
        (("schedule=constant",), "schedule=constant (was cosine)"),
        (("schedule=plateau", "schedule.patience=3"),
         "schedule=plateau (was cosine), schedule.patience=3"),
        (("trainer.gradient_clip_val=1.0", "trainer.accumulate_grad_batches=4"),
         "trainer.gradient_clip_val=1.0 (was null), trainer.accumulate_grad_batches=4 (was 1)"),
        (("optimizer.amsgrad=true",), "optimizer.amsgrad=true (was false)"),
        (("callbacks=[default,ema]",), "callbacks=[default,ema] (was default)"),
        (("~callbacks.training_curve",), "no callbacks.training_curve"),
        (("run_dir=other", "trust=[mine]"), ""),
    ],
)  # fmt: skip
def test_only_what_is_another_value_is_told(typed: tuple[str, ...], told: str) -> None:
    found = described(stored(), again(*typed))
    assert found.partition(" (was {")[0] == told


@pytest.mark.parametrize(
    ("of", "typed"),
    [
        ((), "model.backbone_ckpt=other.ckpt"),
        (("model=resnet",), "model.zero_init_residual=true"),
        (("task=python_docs", "task.vocabulary=50"), "model.initial_std=0.5"),
        (("task=python_docs", "model=trellisnet", "task.vocabulary=50"), "model.initial_range=0.5"),
        (("task=hyperparameter",), "model.log_strength=1.0"),
        (("task=ssl_digits",), "model.encoder.zero_init_residual=true"),
    ],
)
def test_a_beginning_that_is_over_cannot_be_changed(of: tuple[str, ...], typed: str) -> None:
    with pytest.raises(UserError, match="sets the initial weights of a new run"):
        again(typed, of=stored(*of))


def phased(reached: int, phases: str = TWO) -> Stored:
    """A run of ten steps, of which so many are behind it."""
    words = (f"callbacks.gradient_schedule.phases={phases}", "trainer.max_steps=10")
    run = stored(*words)
    return Stored(run.path, run.config, run.choices, epochs=0, steps=reached, shapes=run.shapes)


@pytest.mark.parametrize(
    ("reached", "typed"),
    [(0, "gradient=phantom"), (3, "gradient.steps=2"), (7, "gradient=phantom"),
     (7, "solver.max_steps=12")],
)  # fmt: skip
def test_an_estimator_or_a_budget_that_phases_replace_is_refused(reached: int, typed: str) -> None:
    with pytest.raises(UserError, match="would have no effect: each remaining phase"):
        again(typed, of=phased(reached))


@pytest.mark.parametrize(
    ("reached", "phases", "typed"),
    [
        (3, TWO, "solver.max_steps=12"),  # the first phase has none of its own
        (3, "[{start: 0, gradient: jfb}, {start: 0.5}]", "gradient=phantom"),
        (3, "[{start: 0.5, gradient: jfb}]", "gradient=phantom"),
    ],
)
def test_what_will_be_in_force_is_taken(reached: int, phases: str, typed: str) -> None:
    assert again(typed, of=phased(reached, phases)).config


def test_new_phases_and_an_evaluation_decide_for_themselves() -> None:
    run = phased(7)
    none = "callbacks.gradient_schedule.phases=[]"
    assert again("gradient=phantom", none, of=run).choices["gradient"] == "phantom"
    words = ["ckpt_path=run/checkpoints/last.ckpt", "gradient=phantom"]
    assert recompose(run, words, "evaluate").choices["gradient"] == "phantom"
