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
FAILS = "optimizer.lr=-1.0"
FOUR = ["optimizer.lr=1e-3,-1.0,1e-2,1e-4", "trainer.max_steps=3"]
TWELVE = ["seed=1,2,3,4", "optimizer.lr=1e-3,1e-2,1e-4", "trainer.max_steps=12"]
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


def times(folder: Path, names: Sequence[str] | set[str]) -> dict[str, float]:
    return {name: (folder / name / "metrics.json").stat().st_mtime for name in names}


def test_a_killed_sweep_goes_on_where_it_ended(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    done = killed_after(sweep("joblib", *FOUR), folder, 1)
    before = times(folder, done)
    status, out, errors = ended(sweep("joblib", *FOUR, "resume=auto"))
    assert status == 1, errors
    assert f"of whose 4 jobs {len(done)} are finished" in out
    assert out.count("completed before") == len(done)
    assert times(folder, done) == before
    told = {row["run"]: row for row in rows(folder)}
    assert list(told) == ["0_lr-0.001", "1_lr--1.0", "2_lr-0.01", "3_lr-0.0001"]
    assert [row["status"] for row in told.values()] == ["completed", "failed", *["completed"] * 2]
    assert f"1_lr--1.0 failed: {told['1_lr--1.0']['error']} (log: sweep/1_lr--1.0/error.log)" in out
    assert "1 of 4 jobs are not finished" in out
