"""The global batch in words; several processes of one run, told by the first."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import torch

import equipoise
from equipoise.commands import train
from equipoise.running.processes import ADDRESSES, global_batch

SMALL = [
    "model.channels=[4,4]", "model.head_channels=[2,2]", "model.final_channels=8",
    "model.groups=2", "solver.max_steps=2", "gradient=jfb", "callbacks.report=null",
    "task.eval_batch_size=512", "trainer.max_steps=2",
]  # fmt: skip


@pytest.mark.parametrize(
    ("processes", "parts", "published", "said"),
    [
        (1, 1, {"batch_size": 48, "processes": 4}, ""),
        (4, 1, {}, "task.batch_size=12 x 4 processes = 48 samples per step"),
        (1, 2, {}, "task.batch_size=12 x 2 accumulated batches = 24 samples per step"),
        (2, 3, {}, "12 x 2 processes x 3 accumulated batches = 72 samples per step"),
        (
            4, 1, {"batch_size": 12, "processes": 4},
            "= 48 samples per step; the recipe was published with 12 on 4 processes, which is "
            "task.batch_size=3 here",
        ),
        (2, 1, {"batch_size": 24}, "= 24 samples per step; the recipe was published with 24"),
        (5, 1, {"batch_size": 12}, "= 60 samples per step; the recipe was published with 12"),
    ],
)  # fmt: skip
def test_the_global_batch_is_said_where_it_is_another(
    processes: int, parts: int, published: dict[str, int], said: str
) -> None:
    line = global_batch(12, processes, parts, published)
    assert line.endswith(said)
    assert bool(line) is (processes * parts > 1)


def environment() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in ADDRESSES}


@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
def test_a_run_from_python_tells_its_second_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = environment()
    metrics = equipoise.run(*SMALL, "strategy=ddp_cpu", "run_dir='two é='")
    assert metrics["status"] == "completed"
    assert metrics["steps"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["two é="]
    assert "task.batch_size=64 x 2 processes = 128 samples per step" in capsys.readouterr().out
    assert environment() == before
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_jobs_of_a_multirun_have_two_processes_each(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQUIPOISE_CORES", "2")  # a job in this process sets it, and leaves it
    monkeypatch.setattr("sys.argv", ["train.py"])
    words = ["-m", "seed=1,2", "strategy=ddp_cpu", f"hydra/launcher={launcher}", *SMALL]
    assert train.main(words) == 0
    (sweep,) = (tmp_path / "multirun").iterdir()
    jobs = [path for path in sweep.iterdir() if (path / "metrics.json").is_file()]
    assert {json.loads((job / "metrics.json").read_text())["steps"] for job in jobs} == {2}
    assert len(jobs) == 2
    with (sweep / "summary.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["completed", "completed"]
    assert list(tmp_path.iterdir()) == [tmp_path / "multirun"]
