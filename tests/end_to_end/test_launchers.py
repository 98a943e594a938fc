"""Sweeps by every launcher: failed, killed and interrupted jobs, and how `resume=auto` goes on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, environment, heed_interrupts

TINY = [
    "model.channels=[4,4]", "model.head_channels=[2,2]", "model.final_channels=8",
    "model.groups=2", "solver.max_steps=2", "gradient=jfb", "callbacks.report=null",
    "callbacks.progress=null", "trainer.enable_progress_bar=false", "task.eval_batch_size=512",
    "trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "logger=none",
]  # fmt: skip
FOUR = ["optimizer.lr=1e-3,-1.0,1e-2,1e-4", "trainer.max_steps=3"]
TWELVE = ["seed=1,2,3,4", "optimizer.lr=1e-3,1e-2,1e-4", "trainer.max_steps=12"]
ONE_OF_TWELVE = "optimizer.lr=1e-3,2e-3,3e-3,-1.0,4e-3,5e-3,6e-3,7e-3,8e-3,9e-3,1e-2,2e-2"
SUICIDE = """
import os, signal
from lightning.pytorch import Callback

class Suicide(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.max_steps == 2:
            os.kill(os.getpid(), signal.SIGKILL)
"""
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local"],
}
PLUGINS = {"joblib": "hydra_plugins.hydra_joblib_launcher",
           "submitit_local": "hydra_plugins.hydra_submitit_launcher"}  # fmt: skip
Sweep = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    """Start a sweep in the folder `sweep`, in a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def begin(launcher: str, *words: str) -> subprocess.Popen[str]:
        if launcher in PLUGINS:
            pytest.importorskip(PLUGINS[launcher])
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), "-m", *TINY, *words, *LAUNCHERS[launcher],
             "hydra.sweep.dir=sweep"],
            cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, preexec_fn=heed_interrupts,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ended(process: subprocess.Popen[str], timeout: float = 600) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=timeout)
    return process.returncode, out, errors


def statuses(folder: Path) -> dict[str, str]:
    """The status of each job that wrote its results."""
    files = sorted(folder.glob("*/metrics.json"))
    return {file.parent.name: json.loads(file.read_text())["status"] for file in files}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def wait_for(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 300
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def killed_after(process: subprocess.Popen[str], folder: Path, jobs: int) -> set[str]:
    """Kill everything once so many jobs are completed; returns those that are."""
    wait_for(lambda: len(statuses(folder)) >= jobs, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return {name for name, status in statuses(folder).items() if status == "completed"}


def is_gone(process: subprocess.Popen[str]) -> bool:
    """Whether no process of its group is left, soon after it has ended."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.5)
    return False


def times(folder: Path, names: Sequence[str] | set[str]) -> dict[str, float]:
    return {name: (folder / name / "metrics.json").stat().st_mtime for name in names}


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_ended(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    done = killed_after(sweep("joblib", *FOUR), folder, 1)
    before = times(folder, done)
    status, out, errors = ended(sweep("joblib", *FOUR, "resume=auto"))
    assert status == 1, errors
    assert f"of its 4 jobs, {len(done)} are finished" in out
    assert out.count("completed before") == len(done)
    assert times(folder, done) == before
    told = {row["run"]: row for row in rows(folder)}
    assert list(told) == ["0_lr-0.001", "1_lr--1.0", "2_lr-0.01", "3_lr-0.0001"]
    assert [row["status"] for row in told.values()] == ["completed", "failed", *["completed"] * 2]
    assert f"1_lr--1.0 failed: {told['1_lr--1.0']['error']} (log: sweep/1_lr--1.0/error.log)" in out
    assert "1 of 4 jobs are not finished" in out


@pytest.mark.slow
def test_one_of_twelve_jobs_fails_and_eleven_have_results(sweep: Sweep, tmp_path: Path) -> None:
    status, out, errors = ended(sweep("joblib", ONE_OF_TWELVE, "trainer.max_steps=2"))
    assert status == 1, errors
    assert out.startswith("2 jobs at a time, each with ")
    told = rows(tmp_path / "sweep")
    assert [row["run"].partition("_")[0] for row in told] == [str(n) for n in range(12)]
    (failed,) = (row for row in told if row["status"] != "completed")
    assert failed["run"] == "3_lr--1.0"
    assert sum(bool(row["test accuracy"]) for row in told) == 11
    assert f"3_lr--1.0 failed: {failed['error']} (log: sweep/3_lr--1.0/error.log)" in out
    assert "Traceback" in (tmp_path / "sweep" / failed["log"]).read_text()


@pytest.mark.slow
def test_twelve_jobs_killed_after_the_fifth_go_on_with_seven(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    done = killed_after(sweep("joblib", *TWELVE), folder, 5)
    assert len(done) in (5, 6)  # of two side by side the other may end at the same moment
    before = times(folder, done)
    status, out, errors = ended(sweep("joblib", *TWELVE, "resume=auto"))
    assert status == 0, errors
    assert out.count("run folder: ") == 12 - len(done)
    assert out.count("completed before") == len(done)
    assert times(folder, done) == before
    assert [row["status"] for row in rows(folder)] == ["completed"] * 12
    with (folder / "seeds.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "submitit_local"])
def test_another_launcher_goes_on_just_as_well(launcher: str, sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    done = killed_after(sweep(launcher, *FOUR), folder, 1)
    status, out, errors = ended(sweep(launcher, *FOUR, "resume=auto"))
    assert status == 1, errors
    assert f"of its 4 jobs, {len(done)} are finished" in out
    assert [row["status"] for row in rows(folder)] == ["completed", "failed", *["completed"] * 2]


@pytest.mark.slow
def test_two_jobs_of_submitit_run_to_the_end(sweep: Sweep, tmp_path: Path) -> None:
    status, out, errors = ended(sweep("submitit_local", "seed=1,2", "trainer.max_steps=2"))
    assert status == 0, errors
    assert "the jobs write what they print into sweep/.submitit" in out
    assert [row["status"] for row in rows(tmp_path / "sweep")] == ["completed"] * 2
    printed = [file.read_text() for file in (tmp_path / "sweep" / ".submitit").rglob("*.out")]
    assert sum("results: sweep/" in text for text in printed) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "number", "to_all"),
    [
        ("joblib", signal.SIGINT, True),
        ("joblib", signal.SIGTERM, True),
        ("joblib", signal.SIGTERM, False),
        ("submitit_local", signal.SIGINT, True),
    ],
)
def test_a_signal_ends_all_jobs_with_their_state_saved(
    launcher: str, number: signal.Signals, to_all: bool, sweep: Sweep, tmp_path: Path
) -> None:
    """To the group, as from a terminal, or to the process that was started alone."""
    folder = tmp_path / "sweep"
    process = sweep(launcher, "seed=1,2,3", "trainer.max_steps=100000")
    wait_for(lambda: len(list(folder.glob("*/config.yaml"))) == 2, process)
    time.sleep(3)
    (os.killpg if to_all else os.kill)(process.pid, number)
    status, out, errors = ended(process)
    assert status == 128 + number, errors
    assert statuses(folder) == {"0_seed-1": "interrupted", "1_seed-2": "interrupted"}
    assert "Traceback" not in errors
    assert "3 of 3 jobs are not finished" in out
    assert not [path for path in folder.glob("*seed-3*") if path.is_dir()]
    assert is_gone(process)


@pytest.mark.slow
def test_jobs_whose_starter_was_killed_end_too(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    process = sweep("joblib", "seed=1,2,3", "trainer.max_steps=100000")
    wait_for(lambda: len(list(folder.glob("*/config.yaml"))) == 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert is_gone(process)
    assert not list(folder.glob("*seed-3*"))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_job_that_is_killed_does_not_end_the_others(
    launcher: str, sweep: Sweep, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(SUICIDE)
    own = "+callbacks.suicide={_target_: own.Suicide}"
    status, out, errors = ended(sweep(launcher, "trainer.max_steps=1,2,3", own))
    assert status == 1, errors
    told = {row["run"]: row for row in rows(tmp_path / "sweep")}
    assert [row["status"] for row in told.values()] == ["completed", "failed", "completed"]
    assert told["1_max_steps-2"]["error"].startswith("The process of this job was killed")
    assert "1_max_steps-2 failed: The process of this job was killed" in out


@pytest.mark.slow
def test_a_job_near_the_end_of_its_time_goes_on_in_the_next_one(
    sweep: Sweep, tmp_path: Path
) -> None:
    """submitit's signal, as it sends it on Slurm too: saved first, then queued again."""
    folder = tmp_path / "sweep"
    process = sweep("submitit_local", "seed=1", "trainer.max_steps=600")
    wait_for(lambda: list(folder.glob("*/checkpoints/last.ckpt")), process)
    listed = subprocess.run(
        ["ps", "-o", "pid,args", "--no-headers", "-g", str(process.pid)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (job,) = (int(line.split()[0]) for line in listed.splitlines() if "core._submit" in line)
    os.kill(job, signal.SIGUSR2)
    status, _, errors = ended(process)
    assert status == 0, errors
    printed = "".join(file.read_text() for file in (folder / ".submitit").rglob("*.out"))
    assert "SIGUSR2: finishing this step and saving" in printed
    assert "resume=auto: continues in sweep/0 after step" in printed
    assert [row["status"] for row in rows(folder)] == ["completed"]
