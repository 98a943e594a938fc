"""Other precisions: every estimator trains as well in bfloat16, every task runs in any of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import equipoise
from equipoise.config.compose import CONF
from equipoise.errors import UserError
from tests.end_to_end import resuming

ESTIMATORS = sorted(f.stem for f in (CONF / "gradient").glob("*.yaml") if f.stem != "none")
QUIET = ["callbacks.report=null", "callbacks.progress=null", "trainer.enable_progress_bar=false"]


@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.parametrize("gradient", ESTIMATORS)
def test_training_in_half_precision_is_as_good(gradient: str, tmp_path: Path) -> None:
    def accuracy(precision: str) -> float:
        words = [*QUIET, f"gradient={gradient}", "strategy=cpu", f"trainer.precision={precision}"]
        metrics = equipoise.run(*words, f"run_dir={tmp_path}/{precision}")
        return float(metrics["test"]["accuracy"])

    assert accuracy("bf16-mixed") > accuracy("32-true") - 0.015


TASKS = [
    ["task=ssl_digits"], ["task=digits"], ["task=copy_memory"], ["task=python_docs"],
    ["task=digit_scenes", "solver.max_steps=3"], ["task=trimodal"], ["task=number_words"],
    ["task=digits_and_scenes", "solver.max_steps=3"], ["task=nmr_small"],
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
@pytest.mark.parametrize("words", TASKS, ids=lambda words: words[0].partition("=")[2])
def test_every_bundled_task_runs_in_any_precision(
    words: list[str], precision: str, tmp_path: Path
) -> None:
    short = ["trainer.max_steps=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
    chosen = [*words, *short, *QUIET, "strategy=cpu", f"trainer.precision={precision}"]
    metrics = equipoise.run(*chosen, f"run_dir={tmp_path}/run")
    assert metrics["status"] == "completed"
    assert metrics["steps"] == 2


SMALL = {name: words for name, words in resuming.TASKS.items() if name != "image_folder"}
REFUSED = {
    "range_query": "would round the true answers to 16 bits",
    "nmr_small": "would round places of atoms and couplings to 16 bits",
    "hyperparameter": "is too coarse for hyper-gradients",
}
"""The tasks whose numbers have more digits than 16 bits hold."""
ALWAYS = [("copy_memory", "bf16-true"), ("range_query", "bf16-true")]


@pytest.mark.end_to_end
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(name, precision, marks=() if (name, precision) in ALWAYS else pytest.mark.slow)
        for name in SMALL
        for precision in ("bf16-true", "16-true")
    ],
)
def test_weights_of_16_bits_train_or_are_refused_before_the_first_step(
    name: str, precision: str, tmp_path: Path
) -> None:
    short = ["trainer.max_steps=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
    words = [f"task={name}", *SMALL[name], *short, *QUIET, f"trainer.precision={precision}"]
    words += ["strategy=cpu", f"run_dir={tmp_path}/run"]
    if name in REFUSED:
        with pytest.raises(UserError, match=f"trainer.precision={precision} {REFUSED[name]}"):
            equipoise.run(*words)
        assert not (tmp_path / "run" / "checkpoints").exists()
        return
    metrics = equipoise.run(*words)
    assert (metrics["status"], metrics["steps"]) == ("completed", 2)
    scores = [score for score in metrics["test"].values() if score is not None]
    assert np.isfinite(scores).all()
