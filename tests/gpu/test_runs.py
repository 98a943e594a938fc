"""Runs of the framework on a GPU: half precision, evaluation, and a resumed run bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import equipoise
from tests.end_to_end.resuming import (
    BATCHES,
    TASKS,
    checkpoint,
    curve,
    differences,
    interrupted,
    resumed,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
]
QUIET = ("callbacks.report=null", "~callbacks.progress", "trainer.enable_progress_bar=false")
ON_GPU = ("strategy=gpu", *QUIET)
KEPT = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "training_position")


@pytest.fixture(autouse=True)
def choice_of_algorithms() -> Iterator[None]:
    """A deterministic run leaves its choice to the whole process."""
    yield
    torch.use_deterministic_algorithms(False)


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return found["test"] == pytest.approx(expected["test"], rel=2e-3, abs=3e-3)


def test_a_run_in_half_precision_evaluates_to_its_own_metrics(tmp_path: Path) -> None:
    trained = equipoise.run(
        "task=digits", *ON_GPU, "trainer.precision=bf16-mixed", "trainer.max_epochs=4",
        f"run_dir={tmp_path}/run",
    )  # fmt: skip
    assert trained["status"] == "completed"
    assert trained["device"] != "cpu"
    assert trained["test"]["accuracy"] > 0.5
    again = equipoise.evaluate(
        f"ckpt_path={tmp_path}/run/checkpoints/best.ckpt", f"run_dir={tmp_path}/again"
    )
    assert same(again, trained)


NEEDED = {"number_words": ("num2words", "tokenizers"), "nmr_small": ("rdkit",)}
"""Packages of extras that a task reads its data with."""


@pytest.mark.parametrize("task", [name for name in TASKS if name != "image_folder"])
def test_every_kind_of_task_trains_and_tests(task: str, tmp_path: Path) -> None:
    for package in NEEDED.get(task, ()):
        pytest.importorskip(package)
    found = equipoise.run(
        f"task={task}", *TASKS[task], *ON_GPU, "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1", f"run_dir={tmp_path}/run",
    )  # fmt: skip
    assert found["status"] == "completed"
    assert found["test"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_sharded_run_clips_accumulates_and_leaves_an_ordinary_checkpoint(
    precision: str, tmp_path: Path
) -> None:
    trained = equipoise.run(
        "task=digits", *TASKS["digits"], *QUIET, "strategy=fsdp", "trainer.devices=1",
        f"trainer.precision={precision}", "trainer.gradient_clip_val=1.0",
        "trainer.accumulate_grad_batches=2", "trainer.max_epochs=2", f"run_dir={tmp_path}/run",
    )  # fmt: skip
    assert trained["status"] == "completed"
    again = equipoise.evaluate(
        f"ckpt_path={tmp_path}/run/checkpoints/best.ckpt", "strategy=gpu",
        f"run_dir={tmp_path}/again",
    )  # fmt: skip
    assert same(again, trained)


@pytest.mark.parametrize("gradient", ["neumann", "exact"])
def test_a_run_stopped_within_an_epoch_leaves_what_the_whole_run_leaves(
    gradient: str, tmp_path: Path
) -> None:
    words = (
        "task=digits", *TASKS["digits"], *ON_GPU, f"gradient={gradient}", "seed=7",
        "trainer.deterministic=true", "trainer.max_epochs=2", "trainer.log_every_n_steps=2",
    )  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    equipoise.run(*words, f"run_dir={whole}")
    interrupted(broken, BATCHES + 1, *words)
    resumed(broken)
    assert curve(broken) == curve(whole)
    pair = [{name: checkpoint(folder).get(name) for name in KEPT} for folder in (broken, whole)]
    assert differences(*pair) == []
