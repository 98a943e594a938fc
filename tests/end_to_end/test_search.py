"""Searches through the command line: continued after a kill, in several processes, improving."""

from __future__ import annotations

import csv
import json
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import SMALL

pytest.importorskip("optuna")

QUICK = [*SMALL, "trainer.limit_train_batches=2", "trainer.limit_val_batches=1",
         "trainer.limit_test_batches=1", "task.eval_batch_size=64", "logger=none",
         "callbacks.progress=null", "trainer.enable_progress_bar=false",
         "callbacks.checkpoint_last=null"]  # fmt: skip


def rows_of(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "summary.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def study_of(sweep: Path) -> dict[str, Any]:
    found = json.loads((sweep / "study.json").read_text())
    assert isinstance(found, dict)
    return found


def folders_of(sweep: Path) -> list[str]:
    return sorted(path.name for path in sweep.iterdir() if (path / ".hydra").is_dir())


@pytest.mark.slow
@pytest.mark.end_to_end
def test_a_search_is_continued_after_a_kill(command, start, tmp_path: Path) -> None:
    words = ["-m", "sweep=optuna", "sweep.trials=2", "trainer.max_epochs=1", *QUICK,
             "hydra.sweep.dir=search", "resume=auto"]  # fmt: skip
    killed, sweep = start(*words), tmp_path / "search"
    until = time.monotonic() + 200
    while not (sweep / "1" / "config.yaml").exists() and time.monotonic() < until:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = command("train.py", *words, timeout=900)
    assert done.returncode == 0, done.stderr
    assert folders_of(sweep) == ["0", "1", "2"]
    statuses = [row["status"] for row in rows_of(sweep)]
    assert statuses == ["completed", "killed", "completed"]
    trials = study_of(sweep)["trials"]
    assert trials[1]["params"] == trials[2]["params"]
    best = study_of(sweep)["best"]
    assert best["value"] == max(trial["value"] for trial in trials if trial["value"] is not None)
    assert best["command"] in done.stdout
    assert "trainer.max_epochs=4" in best["command"]
    assert (sweep / "search.png").is_file()


@pytest.mark.slow
@pytest.mark.end_to_end
def test_eight_trials_improve_over_the_first(command, tmp_path: Path) -> None:
    done = command("train.py", "-m", "sweep=optuna", "sweep.trials=8", "trainer.max_epochs=2",
                   "optimizer.lr=tag(log,interval(1e-5,1e-1))", *SMALL, "logger=none",
                   timeout=1200)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    found = study_of(sweep)
    assert len(found["trials"]) == 8
    assert found["best"]["value"] > found["trials"][0]["value"]


@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_hopeless_trials_are_pruned_in_other_processes(
    command, tmp_path: Path, storage: str
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = command("train.py", "-m", "sweep=optuna", "sweep.trials=4", "sweep.at_once=2",
                   f"sweep.storage={storage}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
                   "sweep.pruner={_target_:optuna.pruners.ThresholdPruner,lower:0.99}",
                   "trainer.max_epochs=3", *QUICK, timeout=1200)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    assert folders_of(sweep) == ["0", "1", "2", "3"]
    assert [row["status"] for row in rows_of(sweep)] == ["pruned"] * 4
    for folder in folders_of(sweep):
        metrics = json.loads((sweep / folder / "metrics.json").read_text())
        assert (metrics["status"], metrics["details"]["ended_by"]) == ("completed", "pruned")
        assert metrics["epochs"] == 1


@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.parametrize("lower", [0.0, 0.99])
def test_all_ranks_of_a_trial_agree(command, tmp_path: Path, lower: float) -> None:
    done = command("train.py", "-m", "sweep=optuna", "sweep.trials=2", "strategy=ddp_cpu",
                   f"sweep.pruner={{_target_:optuna.pruners.ThresholdPruner,lower:{lower}}}",
                   "trainer.max_epochs=2", *QUICK, timeout=1200)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    assert folders_of(sweep) == ["0", "1"]
    trials = study_of(sweep)["trials"]
    assert [trial["run"] for trial in trials] == ["0", "1"]
    assert trials[0]["params"] != trials[1]["params"]
    assert {trial["status"] for trial in trials} == {"pruned" if lower else "completed"}


@pytest.mark.slow
@pytest.mark.end_to_end
def test_trials_that_diverge_or_fail_do_not_end_a_search(command, tmp_path: Path) -> None:
    done = command("train.py", "-m", "sweep=optuna", "sweep.sampler=grid", "trainer.max_steps=6",
                   "optimizer.lr=1e-3,1e+30", *SMALL, "logger=none", timeout=1200)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    assert [row["status"] for row in rows_of(sweep)] == ["completed", "diverged"]
    failing = command("train.py", "-m", "sweep=optuna", "sweep.sampler=grid", *QUICK,
                      "trainer.max_epochs=1", "equilibrium.on_failure=raise,warn",
                      "optimizer.lr=1e-3", "hydra.sweep.dir=failing", timeout=1200)  # fmt: skip
    assert failing.returncode == 1, failing.stderr
    ended = {row["equilibrium.on_failure"]: row["status"] for row in rows_of(tmp_path / "failing")}
    assert ended == {"raise": "failed", "warn": "completed"}


@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["sweep=optuna_solver"], 3),
        (["sweep=optuna_jacobian"], 2),
        (["sweep=optuna", "task=python_docs", "optimizer.lr=1e-3,1e-2", "sweep.sampler=grid"], 2),
    ],
)
def test_every_named_space_runs(command, tmp_path: Path, words: list[str], count: int) -> None:
    size = QUICK if "task=python_docs" not in words else ["model.size=tiny", *QUICK[4:]]
    size = [word for word in size if words[0] != "sweep=optuna" or "eval_batch" not in word]
    done = command("train.py", "-m", *words, f"sweep.trials={count}", "trainer.max_steps=2",
                   *size, timeout=1200)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    assert [row["status"] for row in rows_of(sweep)] == ["completed"] * count
    longer = shlex.split(study_of(sweep)["best"]["command"])
    assert longer[:2] == ["python", "train.py"]
    assert command(*longer[1:], "trainer.max_steps=1").returncode == 0
