"""Several runs on one page: each is a row and a curve, and what they differ in is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise.errors import UserError
from equipoise.report.comparison import (
    MOST_LINES,
    compare_runs,
    find_runs,
    plots,
    write_comparison,
)

ORIGIN = {"command": "python -m equipoise compare a b", "date": "2026-01-01", "revision": "abc"}


def write_run(
    folder: Path,
    choices: dict[str, str] | None,
    config: dict[str, Any],
    loss: float = 0.5,
    **more: Any,
) -> Path:
    """Write what a run leaves: two validations, and the loss of the test."""
    (folder / "report").mkdir(parents=True)
    (folder / "report" / "index.html").write_text("")
    metrics = {
        "task": "digits", "model": "mdeq", "solver": None, "gradient": None, "status": "completed",
        "seconds": 2.5, "gradient_stats": None, "test": {"loss": loss}, "choices": choices,
        "solver_stats": {"nfe_mean": 20.0, "residual_median": 1e-3, "converged_fraction": 0.75},
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics | more))
    where = {"run_dir": str(folder), "report": {"dirpath": f"{folder}/report"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(where | config, sort_keys=False))
    rows = [f"{epoch},{epoch},{loss / (epoch + 1)},0.1" for epoch in range(2)]
    (folder / "metrics.csv").write_text("\n".join(["epoch,step,val/loss,solver/nfe", *rows]))
    return folder


def config(seed: int, tolerance: float, rate: float = 0.1) -> dict[str, Any]:
    solver = {"_target_": f"solver_{tolerance}", "tol": tolerance, "memory": 5}
    return {"seed": seed, "task": {"seed": seed, "batch_size": 32}, "solver": solver,
            "optimizer": {"lr": rate}, "logger": {"id": str(seed)}}  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two solvers, whose defaults differ, with other seeds, and the second with another rate."""
    anderson = write_run(tmp_path / "runs" / "2", {"solver": "anderson"}, config(0, 1e-3), 0.5)
    broyden = write_run(tmp_path / "runs" / "10", {"solver": "broyden"}, config(1, 1e-4, 0.2), 0.25)
    return [anderson, broyden]


def test_what_differs_is_named_once(runs: list[Path]) -> None:
    comparison = compare_runs(runs)
    assert comparison.differences == ["solver", "seed", "optimizer.lr"]
    assert comparison.labels == ["solver=anderson seed=0 lr=0.1", "solver=broyden seed=1 lr=0.2"]


def test_a_typed_setting_of_a_group_that_differs_is_named(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / name, {"solver": name}, config(0, tolerance), command=command)
        for name, tolerance, command in (
            ("anderson", 1e-3, "python train.py"),
            ("broyden", 1e-4, "python train.py solver=broyden solver.tol=1e-4"),
        )
    ]
    assert compare_runs(runs).differences == ["solver", "solver.tol"]


def test_the_page_has_the_table_the_curves_and_where_it_comes_from(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    write_comparison(compare_runs(runs), output, ORIGIN)
    with (output / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["2", "10"]
    assert [row["solver"] for row in rows] == ["anderson", "broyden"]
    assert [row["test loss"] for row in rows] == ["0.5", "0.25"]
    assert (rows[0]["nfe"], rows[0]["converged"], rows[0]["seconds"]) == ("20", "0.75", "2.5")
    html = (output / "index.html").read_text()
    for text in ('href="../runs/2/report/index.html"', "val_loss.svg", "solver_nfe.png", "broyden",
                 "2026-01-01", "abc", ORIGIN["command"]):  # fmt: skip
        assert text in html
    names = {file.name for file in output.iterdir()}
    assert names == {"index.html", "runs.csv", *(f"{kind}.{ending}" for ending in ("png", "svg")
                     for kind in ("val_loss", "solver_nfe"))}  # fmt: skip
    assert "2 runs" in capsys.readouterr().out


def test_runs_that_agree_in_everything_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, {}, config(0, 1e-3)) for name in ("a", "b")]
    comparison = compare_runs(runs)
    assert comparison.differences == []
    assert comparison.labels == ["a", "b"]


def test_the_runs_below_a_folder_are_found_in_their_order(runs: list[Path], tmp_path: Path) -> None:
    assert find_runs([tmp_path / "runs"]) == runs
    assert find_runs([runs[1], tmp_path / "runs"]) == runs[::-1]


def test_a_job_that_failed_is_a_row_with_its_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "0_job", {"solver": "anderson"}, config(0, 1e-3))
    failed = tmp_path / "1_job"
    (failed / ".hydra").mkdir(parents=True)
    (failed / ".hydra" / "hydra.yaml").write_text("hydra:\n  job:\n    num: 1\n")
    (failed / ".hydra" / "overrides.yaml").write_text("[solver=newton]")
    (failed / "error.log").write_text("ValueError: wrong\n")
    comparison = compare_runs(find_runs([tmp_path]))
    assert [row["status"] for row in comparison.rows] == ["completed", "failed"]
    assert comparison.rows[1]["error"] == "ValueError: wrong"
    assert [len(plot.lines) for plot in plots(comparison)] == [1, 1]


def test_no_more_curves_than_can_be_told_apart(tmp_path: Path) -> None:
    count = MOST_LINES + 2
    runs = [write_run(tmp_path / str(k), {}, config(k, 1e-3)) for k in range(count)]
    loss = plots(compare_runs(runs))[0]
    assert len(loss.lines) == MOST_LINES
    assert loss.caption == f"Validation loss of {MOST_LINES} of {count} runs."


def test_a_run_of_an_earlier_version_has_its_four_choices(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / name, None, config(0, 1e-3), solver=name)
        for name in ("anderson", "broyden")
    ]
    assert compare_runs(runs).differences == ["solver"]


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty has no run: give folders with a metrics\.json"):
        find_runs([tmp_path / "empty"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metrics.json").write_text('{"status": "fine"}')
    with pytest.raises(UserError, match="is not what a run writes: leave"):
        compare_runs(find_runs([tmp_path / "other"]))
