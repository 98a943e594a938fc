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
)
from equipoise.report.comparison_page import write_comparison

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
    pictures = {f"{kind}.{end}" for end in ("png", "svg") for kind in ("val_loss", "solver_nfe")}
    assert names == {"index.html", "runs.csv", "comparison.md", *pictures}
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


@pytest.fixture
def over_seeds(tmp_path: Path) -> list[Path]:
    """Two solvers with three seeds each, of which one has failed."""
    runs = []
    for solver, losses in (("anderson", (0.2, 0.4, 0.6)), ("broyden", (0.1, 0.3))):
        for seed, loss in enumerate(losses):
            settings = config(seed, 1e-3) | {"task": {"monitor": "val/loss", "monitor_mode": "min"}}
            folder = tmp_path / f"{solver}_{seed}"
            runs.append(write_run(folder, {"solver": solver}, settings, loss))
    settings = config(2, 1e-3) | {"task": {"monitor": "val/loss", "monitor_mode": "min"}}
    failed = write_run(tmp_path / "x", {"solver": "broyden"}, settings, 9.0, status="failed")
    return [*runs, failed]


def test_means_deviations_and_the_best_are_over_the_seeds(
    over_seeds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    write_comparison(compare_runs(over_seeds), output, ORIGIN)
    with (output / "groups.csv").open(newline="") as file:
        rows = {row["solver"]: row for row in csv.DictReader(file)}
    assert [(row["runs"], row["test loss mean"]) for row in rows.values()] == [
        ("3", "0.4"), ("2", "0.2"),
    ]  # fmt: skip
    assert rows["anderson"]["test loss sd"] == "0.2"
    assert float(rows["broyden"]["test loss sd"]) == pytest.approx(0.02**0.5, abs=1e-6)
    assert (rows["anderson"]["best loss"], rows["anderson"]["best run"]) == ("0.2", "anderson_0")
    assert rows["broyden"]["seconds mean"] == "2.5"
    text = (output / "comparison.md").read_text()
    assert "| anderson | 3 | 0.4 ± 0.2 | 0.2 | anderson_0 |" in text
    assert "| x | failed | broyden |" in text
    assert "0.4 ± 0.2" in (output / "index.html").read_text()
    assert "mean ± standard deviation over seed" in capsys.readouterr().out
    assert (output / "groups.png").is_file()


def test_means_may_be_over_another_setting(over_seeds: list[Path]) -> None:
    groups = compare_runs(over_seeds, over=["solver"]).groups
    assert [(group.settings, group.runs) for group in groups] == [
        ({"seed": "0"}, 2), ({"seed": "1"}, 2), ({"seed": "2"}, 1),
    ]  # fmt: skip
    with pytest.raises(UserError, match="over=fold: the runs do not differ in it; they differ in"):
        compare_runs(over_seeds, over=["fold"])


def test_the_best_is_the_greatest_where_the_metric_says_so(tmp_path: Path) -> None:
    settings = {"task": {"monitor": "val/loss", "monitor_mode": "max"}}
    runs = [write_run(tmp_path / str(k), {}, config(k, 1e-3) | settings, k + 0.5) for k in range(2)]
    (group,) = compare_runs(runs).groups
    assert group.best is not None
    assert group.best["test loss"] == 1.5


def test_without_two_runs_alike_there_are_no_means(runs: list[Path]) -> None:
    assert compare_runs(runs).groups == []
