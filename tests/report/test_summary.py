"""summary.csv and its table: every job is in it, whatever ended it, and what was swept is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from equipoise.report.summary import (
    ERROR_LOG,
    print_result,
    print_sweep,
    read_jobs,
    settings_of,
)


def write_job(sweep: Path, number: int, name: str, typed: list[str], loss: float | None) -> Path:
    folder = sweep / name
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(typed))
    record = {"hydra": {"job": {"name": "train", "chdir": None, "num": number}}}
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    if loss is None:
        (folder / ERROR_LOG).write_text("ValueError: wrong\n\nTraceback …\n")
        return folder
    metrics = {
        "status": "completed", "solver_stats": {"nfe_mean": 30.0, "residual_median": 8.8460001e-4},
        "gradient_stats": None, "test": {"loss": loss, "accuracy": 0.5}, "seconds": 1.0,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for number, (rate, loss) in enumerate([("0.001", 2.3123456789), ("-1", None), ("0.01", 1.0)]):
        typed = ["task.batch_size=32", f"optimizer.lr={rate}", f"task.path='/long/{rate}'"]
        write_job(tmp_path, number, f"{number}_lr-{rate}", typed, loss)
    return tmp_path


def test_every_job_is_a_row_and_every_swept_key_a_column(sweep: Path) -> None:
    assert print_sweep(sweep) == 1
    with (sweep / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["0_lr-0.001", "1_lr--1", "2_lr-0.01"]
    assert [row["status"] for row in rows] == ["completed", "failed", "completed"]
    assert [row["optimizer.lr"] for row in rows] == ["0.001", "-1", "0.01"]
    assert rows[1]["task.path"] == "/long/-1"
    assert rows[1]["error"] == "ValueError: wrong"
    assert rows[1]["log"] == "1_lr--1/error.log"
    assert rows[0]["test loss"] == "2.31235"
    assert rows[0]["residual"] == "0.0008846"
    assert set(rows[0]) & {"task.batch_size", "backward nfe"} == set()  # alike, or empty
    assert all(any(row[name] for row in rows) for name in rows[0])


def test_the_table_fits_80_columns_and_names_what_failed(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_sweep(sweep)
    table = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in table if line[:1] in "┏┃┡│└") <= 80
    assert "1_lr--1 failed: ValueError: wrong" in table[-1]
    assert "error.log" in table[-1]
    head = next(line for line in table if "run" in line)
    for column in ("status", "task.path", "test loss"):
        assert column in head
    assert "optimizer.lr" not in head  # the folder's name tells it


def test_lists_are_shown_as_typed_and_the_monitored_metric_comes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for number, modality in enumerate(("language", "audio")):
        folder = write_job(tmp_path, number, str(number), [f"model.modalities=[{modality}]"], 1.0)
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics["test"] = {"accuracy": 0.5, "loss": 0.1, "mae": 0.2}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "config.yaml").write_text("task: {monitor: val/mae}")
    print_sweep(tmp_path)
    printed = capsys.readouterr().out
    assert "[language]" in printed
    head = next(line for line in printed.splitlines() if "run" in line)
    assert head.index("test mae") < head.index("test accuracy")


def test_long_names_leave_room_for_a_metric(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for number, folder in enumerate(sorted(sweep.iterdir())):
        folder.rename(sweep / f"{number}_{'long' * 30}_{folder.name}")
    print_sweep(sweep)
    table = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in table if line[:1] in "┏┃┡│└") <= 80
    assert "status" in next(line for line in table if "run" in line)
    assert any(line.startswith("│ 2_longlong") for line in table)


def test_mappings_are_settings_of_their_own() -> None:
    lines = ["model.attention={kernel:rbf,symmetric:true}", "+task.name='a: b'", "seed=1"]
    assert settings_of(lines) == {
        "model.attention.kernel": "rbf", "model.attention.symmetric": "true",
        "task.name": "a: b", "seed": "1",
    }  # fmt: skip


def test_a_job_that_diverged_can_count_as_a_result(tmp_path: Path) -> None:
    folder = write_job(tmp_path, 0, "0", ["seed=1"], None)
    (folder / ERROR_LOG).write_text("Training diverged: the loss was not finite\n\nTraceback …\n")
    assert print_sweep(tmp_path) == 1
    assert print_sweep(tmp_path, results=("completed", "diverged")) == 0
    assert "diverged" in (tmp_path / "summary.csv").read_text()


def test_jobs_stand_in_their_order_wherever_their_folders_are(tmp_path: Path) -> None:
    names = [f"{'b' if number % 2 else 'a'}/{number}" for number in range(12)]
    for number, name in enumerate(names):
        write_job(tmp_path, number, name, [f"seed={number}"], 1.0)
    assert [job.folder.relative_to(tmp_path).as_posix() for job in read_jobs(tmp_path)] == names


def test_a_sweep_without_jobs_has_failed(tmp_path: Path) -> None:
    assert print_sweep(tmp_path) == 1
    assert not (tmp_path / "summary.csv").exists()


def test_how_a_score_was_computed_is_printed_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    signature = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0|[/red]"
    metrics = {
        "task": "t", "model": "m", "test": {"bleu": 33.25}, "solver_stats": None,
        "gradient_stats": None, "parameters": 3, "seconds": 1.0,
        "details": {"signatures": {"bleu": signature}, "beam": 5},
    }  # fmt: skip
    print_result(metrics, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert f"bleu by {signature}" in lines
    assert any("test bleu" in line and "33.25" in line for line in lines)


def test_types_have_a_table_and_known_figures_a_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    types = {"1JHC": {"count": 7, "mae": 1.25, "mae_of_the_mean": 2.0}, "3JHH": {"count": 2}}
    metrics = {
        "task": "t", "model": "m", "test": {}, "solver_stats": None, "gradient_stats": None,
        "parameters": 3, "seconds": 1.0,
        "details": {"types": types, "yardsticks": {"first place, on the leaderboard": -3.24}},
    }  # fmt: skip
    print_result(metrics, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert "-3.24: first place, on the leaderboard" in lines
    (row,) = (line for line in lines if "1JHC" in line)
    assert all(word in row for word in ("7", "1.25", "2"))
    (empty,) = (line for line in lines if "3JHH" in line)
    assert empty.count("-") == 2
