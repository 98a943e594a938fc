"""What loggers hold: the documented names for every kind of task, each step once, W&B's groups."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import equipoise
from tests.end_to_end.conftest import ROOT, SMALL, environment
from tests.end_to_end.logged_names import (
    READERS,
    documented,
    of_csv,
    of_wandb,
    undocumented,
    wandb_records,
)
from tests.end_to_end.resuming import TASKS

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
]
LOGGERS = "logger=[csv,tensorboard,wandb,mlflow]"
SHORT = ("trainer.max_epochs=1", "trainer.log_every_n_steps=1", "~callbacks.progress",
         "trainer.enable_progress_bar=false")  # fmt: skip
DEFAULT = ("digits", "hyperparameter", "range_query")
SOLVER = {"solver/nfe", "solver/residual_median", "solver/converged_fraction", "backward/nfe"}
TEXTS = {"gradient"}
EPOCH = 21


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if "WANDB" in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.mark.parametrize(
    "task",
    [
        task if task in DEFAULT else pytest.param(task, marks=pytest.mark.slow)
        for task in TASKS
        if task != "image_folder"  # it logs what digits do
    ],
)
def test_every_logger_holds_the_documented_names(task: str, tmp_path: Path) -> None:
    words = (f"task={task}", *TASKS[task], LOGGERS, *SHORT, f"run_dir={tmp_path}/run")
    metrics = equipoise.run(*words)
    held = {name: read(tmp_path / "run") for name, read in READERS.items()}
    for logger, points in held.items():
        assert undocumented(points) == [], logger
    numbers = set(held["csv"]) - TEXTS - {"step"}
    tested = {f"test/{name}" for name in metrics["test"]}
    assert tested
    assert tested <= numbers
    for logger in ("tensorboard", "mlflow"):
        assert {n for n in held[logger] if not n.startswith("report/")} == numbers, logger
    own = {"trainer/global_step", *(n for n in held["wandb"] if n.startswith("report/"))}
    assert set(held["wandb"]) - own == set(held["csv"]) - {"step"}
    pictures = {f"report/{file.stem}" for file in (tmp_path / "run" / "report").glob("*.png")}
    for logger in ("tensorboard", "wandb", "mlflow"):
        assert {n for n in held[logger] if n.startswith("report/")} == pictures, logger
    if metrics["solver_stats"] and task != "hyperparameter":
        assert numbers >= SOLVER
    assert_each_step_once(held)


def assert_each_step_once(held: dict[str, dict[str, list[int]]]) -> None:
    for logger, points in held.items():
        for name, steps in points.items():
            if logger == "csv" and name in ("epoch", "step"):  # they stand in rows of every kind
                continue
            assert len(set(steps)) == len(steps), (logger, name, steps)


def test_names_that_nobody_has_documented_are_found() -> None:
    assert undocumented(["train/loss", "lr-Adam", "lr-SGD/2", "report/anything"]) == []
    unknown = ["train/lossy", "val/nothing", "solver/nfes", "x/train/loss"]
    assert undocumented(unknown) == sorted(unknown)
    assert len(documented()) > 60


def killed_after(rows: int, folder: Path, *words: str) -> int:
    """Start a run, kill it once its curve has so many rows; the last step that it had written."""
    command = [sys.executable, str(ROOT / "train.py"), *words, f"run_dir={folder}"]
    run = subprocess.Popen(command, cwd=folder.parent, env=environment(), stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)  # fmt: skip
    curve = folder / "metrics.csv"
    deadline = time.monotonic() + 500
    while not curve.is_file() or len(curve.read_text().splitlines()) <= rows:
        assert run.poll() is None, "the run has ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    return max(of_csv(folder)["train/loss"])


@pytest.mark.slow
def test_a_killed_run_that_resumes_holds_each_step_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [*SMALL, "trainer.log_every_n_steps=2", "task.batch_size=64", "gradient=jfb",
             "strategy=cpu", "~callbacks.progress", "callbacks.report=null"]  # fmt: skip
    reached = killed_after(16, folder, LOGGERS, *words, "trainer.max_epochs=200")
    resumed = (f"ckpt_path={folder}/checkpoints/last.ckpt", f"run_dir={folder}", LOGGERS)
    epochs = reached // EPOCH + 2
    metrics = equipoise.run(*resumed, f"trainer.max_epochs={epochs}")
    assert metrics["steps"] == EPOCH * epochs
    held = {name: read(folder) for name, read in READERS.items()}
    assert_each_step_once(held)
    steps = held["csv"]["train/loss"]
    assert steps[-1] == EPOCH * epochs
    for logger in ("tensorboard", "wandb", "mlflow"):
        assert held[logger]["train/loss"] == steps, logger
        assert len(held[logger]["val/loss"]) == len(held["csv"]["val/loss"]) == epochs, logger
    ids = {file.stem for file in (folder / "wandb").glob("offline-run-*/*.wandb")}
    assert len(ids) == 1  # both directories are of one W&B run


@pytest.mark.slow
@pytest.mark.parametrize("rows", [3, 24, 40])
def test_it_does_so_wherever_it_is_killed(rows: int, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [*SMALL, "trainer.log_every_n_steps=3", "task.batch_size=64", "gradient=jfb",
             "strategy=cpu", "~callbacks.progress", "callbacks.report=null", "seed=3",
             "trainer.val_check_interval=10"]  # fmt: skip
    reached = killed_after(12 + rows, folder, LOGGERS, *words, "trainer.max_epochs=200")
    epochs = reached // EPOCH + 2
    for more in (epochs, epochs + 1):  # the second goes on behind a test and its pictures
        resumed = (f"ckpt_path={folder}/checkpoints/last.ckpt", f"run_dir={folder}", LOGGERS)
        equipoise.run(*resumed, f"trainer.max_epochs={more}")
    held = {name: read(folder) for name, read in READERS.items()}
    assert_each_step_once(held)
    for logger in ("tensorboard", "wandb", "mlflow"):
        assert held[logger]["train/loss"] == held["csv"]["train/loss"], logger


@pytest.mark.slow
def test_a_multirun_groups_its_runs_and_names_them(command: Any, tmp_path: Path) -> None:
    quick = [*SMALL, "trainer.max_steps=1", "trainer.limit_val_batches=1",
             "trainer.limit_test_batches=1", "callbacks.report=null"]  # fmt: skip
    typed = ["logger=[csv,wandb]", "logger.wandb.tags=[a,b]", "logger.wandb.job_type=search"]
    done = command("train.py", "-m", "seed=1,2", *typed, *quick, "hydra.sweep.dir=sweeps/first")
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "sweeps").rglob("*.wandb"))
    runs = [next(r["run"] for r in wandb_records(f) if r["type"] == "run") for f in files]
    assert [run["display_name"] for run in runs] == ["0_seed-1", "1_seed-2"]
    assert {run["run_group"] for run in runs} == {"first"}
    assert {run["job_type"] for run in runs} == {"search"}
    assert all(run["tags"] == ["a", "b"] for run in runs)
    assert len({run["run_id"] for run in runs}) == 2


def test_models_become_artifacts_when_asked(tmp_path: Path) -> None:
    words = [*SMALL, "trainer.max_steps=2", "trainer.limit_val_batches=1", "strategy=cpu",
             "trainer.limit_test_batches=1", "callbacks.report=null", "logger=wandb"]  # fmt: skip
    equipoise.run(*words, "logger.wandb.log_model=true", f"run_dir={tmp_path}/run")
    (file,) = (tmp_path / "run").rglob("*.wandb")
    records = wandb_records(file)
    artifacts = [r["artifact"] for r in records if r["type"] == "artifact"]
    assert {artifact["type"] for artifact in artifacts} == {"model"}
    settings = str([r for r in records if r["type"] == "config"])
    assert "solver" in settings
    assert "choices" in settings
    assert "test/loss" in of_wandb(tmp_path / "run")
