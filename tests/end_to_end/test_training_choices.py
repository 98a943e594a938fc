"""Averages, early stopping, the finder, clipping: what a whole run makes of each choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.config.compose import compose
from equipoise.errors import UserError
from equipoise.running.api import _prepare, build, evaluate, run
from equipoise.running.build import build_run
from equipoise.running.checkpoints import load_weights
from tests.end_to_end.resuming import TASKS, checkpoint, curve, differences

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
]
QUIET = ("callbacks.report=null", "~callbacks.progress", "trainer.enable_progress_bar=false")
DIGITS = ("task=digits", "seed=7", *TASKS["digits"])
GRADIENT_TASKS = [task for task in TASKS if task not in ("hyperparameter", "range_query")]


def validated(folder: Path, words: tuple[str, ...]) -> dict[str, float]:
    """The validation metrics of best.ckpt."""
    composition = compose(words)
    _prepare(composition, folder)
    built = build_run(composition, folder)
    load_weights(built.task, checkpoint(folder, "best.ckpt")["state_dict"])
    (metrics,) = built.trainer.validate(built.task, datamodule=built.data, verbose=False)
    return dict(metrics)


@pytest.mark.parametrize(
    ("average", "described"),
    [
        ("ema", "exponential moving average of 10 updates"),
        pytest.param("swa", "mean of 8 updates", marks=pytest.mark.slow),
    ],
)
def test_the_best_checkpoint_evaluates_to_what_the_average_was_worth(
    tmp_path: Path, average: str, described: str
) -> None:
    words = (*DIGITS, f"callbacks=[default,{average}]", *QUIET, "trainer.max_epochs=2",
             *(["callbacks.swa.start=0.2"] if average == "swa" else []))  # fmt: skip
    metrics = run(*words, f"run_dir={tmp_path / 'run'}")
    assert metrics["details"]["tested_weights"] == described
    best = checkpoint(tmp_path / "run", "best.ckpt")
    assert differences(best["averaged_weights"]["training"], best["state_dict"]) != []
    again = evaluate(f"ckpt_path={tmp_path}/run/checkpoints/best.ckpt", f"run_dir={tmp_path}/again")
    assert again["test"] == metrics["test"]
    assert again["details"]["tested_weights"] == described
    assert validated(tmp_path / "run", words) == {
        f"val/{name}": value for name, value in metrics["val"].items()
    }


def test_a_run_that_stops_early_says_so_and_goes_on_where_more_patience_is_given(
    tmp_path: Path,
) -> None:
    words = (*DIGITS, "callbacks=[default,early_stopping]", *QUIET, "trainer.max_epochs=5",
             "callbacks.early_stopping.mode=min")  # fmt: skip
    metrics = run(*words, "callbacks.early_stopping.patience=1", f"run_dir={tmp_path / 'run'}")
    assert (metrics["epochs"], metrics["details"]["ended_by"]) == (2, "early_stopping")
    last = f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt"
    more = run(last, f"run_dir={tmp_path / 'more'}", "callbacks.early_stopping.patience=2")
    assert (more["epochs"], more["details"]["ended_by"]) == (3, "early_stopping")


@pytest.mark.slow
def test_a_run_behind_the_finder_is_the_run_without_it(tmp_path: Path) -> None:
    words = (*DIGITS, "trainer.max_epochs=1", "~callbacks.progress")
    run(*words, *QUIET[2:], "callbacks.report=null", f"run_dir={tmp_path / 'plain'}")
    found = run(*words, "callbacks=[default,learning_rate_finder]", *QUIET[2:],
                "callbacks.learning_rate_finder.num_training_steps=15",
                f"run_dir={tmp_path / 'found'}")  # fmt: skip
    assert "suggested_learning_rate" in found["details"]
    page = (tmp_path / "found" / "report" / "index.html").read_text()
    assert "Smoothed training loss at rising learning rates" in page
    plain, after = (checkpoint(tmp_path / name) for name in ("plain", "found"))
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "training_position"):
        assert differences(after[key], plain[key], key) == []
    assert curve(tmp_path / "plain") == curve(tmp_path / "found")


@pytest.mark.parametrize(
    "task", ["digits", *(pytest.param(t, marks=pytest.mark.slow) for t in GRADIENT_TASKS[1:])]
)
@pytest.mark.parametrize("algorithm", ["norm", pytest.param("value", marks=pytest.mark.slow)])
def test_a_step_is_no_longer_than_clipping_lets_it_be(
    tmp_path: Path, task: str, algorithm: str
) -> None:
    bound = 1e-3
    words = (f"task={task}", "seed=7", *TASKS[task], "optimizer=sgd", "optimizer.lr=1.0",
             "optimizer.momentum=0.0", "optimizer.nesterov=false", "optimizer.weight_decay=0.0",
             "schedule=constant", "schedule.warmup=0.0")  # fmt: skip
    clipping = (
        f"trainer.gradient_clip_val={bound}", f"trainer.gradient_clip_algorithm={algorithm}",
        "trainer.accumulate_grad_batches=2", "trainer.max_steps=1",
    )  # fmt: skip
    before = dict(build(*words).named_parameters())
    folder = tmp_path / "run"
    run(*words, *clipping, *QUIET, "trainer.limit_val_batches=1", f"run_dir={folder}")
    state = checkpoint(folder)["state_dict"]
    moved = [(state[f"model.{name}"] - value.detach()).flatten() for name, value in before.items()]
    length = torch.cat(moved).norm() if algorithm == "norm" else torch.cat(moved).abs().max()
    assert length == pytest.approx(bound, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("average", ["ema", "swa"])
@pytest.mark.parametrize("task", GRADIENT_TASKS)
def test_every_task_is_tested_with_its_average_and_behind_the_finder(
    tmp_path: Path, task: str, average: str
) -> None:
    words = (
        f"task={task}", "seed=7", *TASKS[task], "trainer.max_epochs=1", "trainer.max_steps=-1",
        f"callbacks=[default,{average},learning_rate_finder]", f"callbacks.{average}.start=0.3",
        "callbacks.learning_rate_finder.num_training_steps=12", *QUIET,
    )  # fmt: skip
    metrics = run(*words, f"run_dir={tmp_path / 'run'}")
    assert metrics["details"]["tested_weights"] != "training"
    assert "suggested_learning_rate" in metrics["details"]
    best = checkpoint(tmp_path / "run", "best.ckpt")
    assert differences(best["averaged_weights"]["training"], best["state_dict"]) != []
    again = evaluate(f"ckpt_path={tmp_path}/run/checkpoints/best.ckpt", f"run_dir={tmp_path}/again")
    assert again["test"] == metrics["test"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("callbacks=[default,ema,swa]", "callbacks=ema and callbacks=swa both replace the weights"),
        ("callbacks=[default,ema] callbacks.ema.decay=1.0", "callbacks.ema.decay=1.0 must be"),
        ("callbacks=[default,ema] callbacks.ema.start=1.0", "callbacks.ema.start=1.0 must be"),
        ("callbacks=[default,swa] callbacks.swa.annealing=2", "callbacks.swa.annealing=2 must be"),
        ("callbacks=[default,ema] callbacks.ema.decai=0.9", "did you mean callbacks.ema.decay?"),
        ("schedule=step schedule.milestones=[0.5,1.5]", "schedule.milestones"),
        ("schedule=one_cycle schedule.warmup=1.1", "schedule.warmup=1.1 must be"),
        ("task=linear_probe callbacks=[default,swa]", "tests a trained model and trains none"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(words: str, said: str) -> None:
    with pytest.raises(UserError) as refusal:
        compose(words.split())
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("callbacks=[default,early_stopping]", "trainer.limit_val_batches=0"),
            "callbacks=early_stopping follows val/accuracy",
        ),
        (
            (
                "callbacks=[default,learning_rate_finder]",
                "callbacks.learning_rate_finder.max_lr=1e-7",
            ),
            "needs min_lr below max_lr",
        ),
        (
            ("callbacks=[default,early_stopping]", "callbacks.early_stopping.monitor=val/acuracy"),
            "did you mean val/accuracy",
        ),
    ],
)  # fmt: skip
def test_what_a_run_refuses_leaves_no_folder(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UserError) as refusal:
        run(*DIGITS, *words, f"run_dir={tmp_path / 'run'}")
    assert said in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_an_average_that_begins_behind_the_best_epoch_says_that_training_was_tested(
    tmp_path: Path,
) -> None:
    metrics = run(*DIGITS, "callbacks=[default,ema]", *QUIET, "trainer.max_epochs=1",
                  "callbacks.ema.start=0.95", f"run_dir={tmp_path / 'run'}")  # fmt: skip
    assert metrics["details"]["tested_weights"] == "training"
    stored: dict[str, Any] = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert stored["details"]["tested_weights"] == "training"
