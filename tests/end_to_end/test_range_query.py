"""Surveys through the real command line: counts of two processes, a killed run, queries, errors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from tests.end_to_end.conftest import environment

pytestmark = pytest.mark.end_to_end
SMALL = ["task=range_query", "task.users=2001", "task.domain=64", "task.repeats=3",
         "task.batch_size=100", "task.queries=50"]  # fmt: skip


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def surveys_of(folder, name="last.ckpt"):
    """For each survey its closed rounds: counts and reports."""
    checkpoint = torch.load(folder / "checkpoints" / name, weights_only=True)
    closed = checkpoint["state_dict"]["_extra_state"]["closed"]
    return [[(r["counts"].tolist(), r["reports"]) for r in survey] for survey in closed]


def ask(run, query):
    return subprocess.run(
        [sys.executable, "-m", "equipoise", "query", str(run), query],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_count_what_one_counts(command, tmp_path):
    one = command("train.py", *SMALL, "run_dir=one", "callbacks.report=null")
    assert one.returncode == 0, one.stderr
    two = command("train.py", *SMALL, "strategy=ddp_cpu", "trainer.devices=2", "run_dir=two",
                  "callbacks.report=null")  # fmt: skip
    assert two.returncode == 0, two.stderr
    alone = surveys_of(tmp_path / "one")
    assert surveys_of(tmp_path / "two") == alone
    groups = [[reports for _, reports in survey] for survey in alone]
    assert [sum(group) for group in groups] == [2001] * 3  # each person once, nobody lost
    assert any(size % 2 for group in groups for size in group)
    assert metrics_of(tmp_path / "one")["test"] == metrics_of(tmp_path / "two")["test"]


@pytest.mark.slow
def test_a_run_killed_after_a_closed_round_goes_on_to_the_same_answers(command, start, tmp_path):
    longer = [*SMALL, "task.users=60001", "task.batch_size=40", "callbacks.report=null"]
    whole = command("train.py", *longer, "run_dir=whole")
    assert whole.returncode == 0, whole.stderr
    process = start(*longer, "run_dir=part")
    last = tmp_path / "part" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.is_file():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert 0 < len(surveys_of(tmp_path / "part")[0]) < 6
    unfinished = ask(last, "attribute_0 in [0, 9)")
    assert unfinished.returncode == 2
    assert "not finished" in unfinished.stderr
    rest = command("train.py", f"ckpt_path={last}", "run_dir=part")
    assert rest.returncode == 0, rest.stderr
    assert surveys_of(tmp_path / "part") == surveys_of(tmp_path / "whole")
    assert metrics_of(tmp_path / "part")["test"] == metrics_of(tmp_path / "whole")["test"]
    query = "attribute_0 in [20, 40)"
    assert ask(tmp_path / "part", query).stdout == ask(tmp_path / "whole", query).stdout


@pytest.mark.slow
def test_a_run_on_a_file_leaves_pictures_and_answers_queries(command, tmp_path):
    ages = np.random.default_rng(0).normal(40, 12, 3000).clip(0, 99).astype(int)
    heights = np.random.default_rng(1).normal(1.7, 0.1, 3000).clip(1.2, 2.2)
    rows = [f"{age},{height:.3f}" for age, height in zip(ages, heights, strict=True)]
    (tmp_path / "people.csv").write_text("\n".join(["age,height", *rows]) + "\n")
    done = command("train.py", "task=range_query", "task.path=people.csv", "task.epsilon=8",
                   "task.columns=[age,height]", "task.domain=[100,10]", "task.repeats=2",
                   "task.limits=[null,[1.0,2.5]]", "run_dir=run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = metrics_of(tmp_path / "run")
    assert (metrics["status"], metrics["solver"], metrics["solver_stats"]) == (
        "completed", None, None,
    )  # fmt: skip
    assert 0 < metrics["test"]["mse"] < 0.01
    assert set(metrics["details"]["mse_by_volume"]) == {"0.01", "0.1", "0.3", "0.5", "0.7", "0.9"}
    pictures = [path.name for path in (tmp_path / "run" / "report").glob("*.png")]
    assert sorted(pictures) == ["answers.png", "distribution.png", "error_by_length.png"]
    answer = ask(tmp_path / "run", "age in [30, 40] and height in [1.6, 1.75)")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("age in [30, 41) and height in [1.6, 1.75): ")
    words = answer.stdout.partition(": ")[2].split()
    value, error = float(words[0]), float(words[2])
    inside = (ages >= 30) & (ages <= 40) & (heights >= 1.6) & (heights < 1.75)
    assert abs(value - inside.mean()) < max(5 * error, 0.05)
    again = command("evaluate.py", "ckpt_path=run/checkpoints/best.ckpt", "run_dir=again")
    assert again.returncode == 0, again.stderr
    assert metrics_of(tmp_path / "again")["test"] == metrics["test"]


def test_a_sweep_ends_in_a_table_and_a_picture(command, tmp_path):
    done = command("train.py", "-m", "sweep=range_query_table", "model=uniform,ahead",
                   "task.epsilon=4", "task.distribution=zipf", *SMALL[1:])  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    lines = (sweep / "table.csv").read_text().splitlines()
    assert lines[0] == ("task.distribution,task.epsilon,column,mean,standard_error,lost,reason")
    assert [line.split(",")[:3] for line in lines[1:]] == [
        ["zipf", "4", "uniform"], ["zipf", "4", "ahead"],
    ]  # fmt: skip
    uniform, ahead = (float(line.split(",")[3]) for line in lines[1:])
    assert ahead < uniform / 10
    assert (sweep / "table.png").is_file()
    assert (sweep / "table.md").read_text().splitlines()[2].startswith("| distribution | epsilon |")
    assert "lowest in its row" in done.stdout
    alone = command("train.py", "sweep=range_query_table")
    assert (alone.returncode, "add -m" in alone.stderr) == (2, True)


@pytest.mark.slow
def test_an_interrupt_waits_for_the_end_of_the_round(start, tmp_path):
    process = start(*SMALL, "task.users=60001", "task.batch_size=40", "run_dir=part")
    last = tmp_path / "part" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.is_file():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    sizes = [sum(reports for _, reports in survey) for survey in surveys_of(tmp_path / "part")]
    assert len({len(survey) for survey in surveys_of(tmp_path / "part")}) == 1
    assert all(0 < size < 60001 for size in sizes)
    assert metrics_of(tmp_path / "part")["status"] == "interrupted"
