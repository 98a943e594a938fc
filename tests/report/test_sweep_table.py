"""The tables of a sweep: every job is in them, also one that diverged or has not run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise.errors import UserError
from equipoise.report.sweep_cells import SweepTable, cells_of, label, read_outcomes, tables_of
from equipoise.report.sweep_table import show_sweep_tables
from tests.report.test_summary import write_job

NODE = {"metric": "val/bleu", "best": "max", "rows": "model.kernel", "columns": "model.symmetric"}
DIVERGED = "Training diverged: the loss was not finite at step 7"


def add_job(
    sweep: Path, kernel: str, symmetric: bool, bleu: float | None, **other: Any
) -> list[str]:
    """Write a job's folder, None for a loss that was not finite; returns its overrides."""
    number = len(list(sweep.iterdir()))
    setting = f"model={{kernel:{kernel},symmetric:{str(symmetric).lower()}}}"
    folder = write_job(sweep, number, f"{number}_{kernel}", [setting], 1.0)
    file = folder / "metrics.json"
    metrics = json.loads(file.read_text()) | {"details": {}, "test": {"bleu": bleu, "loss": 1.0}}
    file.write_text(json.dumps(metrics | {"seed": number, **other}))
    config = {"model": {"kernel": kernel, "symmetric": symmetric}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if other.get("status") == "failed":
        (folder / "error.log").write_text(f"{DIVERGED}\n\nTraceback …\n")
    return [setting]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """linear | rbf by asymmetric | symmetric: diverged, not finite, 30.5, and not run."""
    (tmp_path / "sweep").mkdir()
    add_job(tmp_path / "sweep", "linear", False, 0.0, status="failed")
    add_job(tmp_path / "sweep", "linear", True, None)
    add_job(tmp_path / "sweep", "rbf", False, 30.5)
    return tmp_path / "sweep"


PLANNED = [["seed=0"]] * 3 + [["model={kernel:rbf,symmetric:True}"]]


def test_every_job_is_in_the_files(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_sweep_tables(sweep, [SweepTable.of("kernels", NODE)], PLANNED)
    with (sweep / "kernels.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["model.kernel", "column", "mean", "standard_error", "lost", "reason"],
        ["linear", "false", "", "", "diverged", DIVERGED],
        ["linear", "true", "", "", "diverged", "the test's bleu is not finite"],
        ["rbf", "false", "30.5", "", "", ""],
        ["rbf", "true", "", "", "-", ""],
    ]
    assert (sweep / "kernels.md").read_text().splitlines() == [
        "Test bleu, the highest of each row in bold.",
        "",
        "| kernel | symmetric=false | symmetric=true |",
        "| :-- | --: | --: |",
        "| linear | diverged | diverged |",
        "| rbf | **30.5** | - |",
        "",
        f"- linear, symmetric=false: {DIVERGED}",
        "- linear, symmetric=true: the test's bleu is not finite",
    ]
    assert (sweep / "kernels.png").read_bytes()[:4] == b"\x89PNG"
    shown = capsys.readouterr().out
    assert f"linear, symmetric=false: {DIVERGED}\n" in shown
    assert "highest in its row" in shown


def test_the_best_of_a_row_follows_the_metric(sweep: Path) -> None:
    add_job(sweep, "rbf", True, 29.0)
    for best, marked in (("max", "| rbf | **30.5** | 29 |"), ("min", "| rbf | 30.5 | **29** |")):
        show_sweep_tables(sweep, [SweepTable.of("kernels", NODE | {"best": best})], [])
        assert marked in (sweep / "kernels.md").read_text()


def test_jobs_of_a_cell_are_averaged_and_the_lost_ones_counted(sweep: Path) -> None:
    add_job(sweep, "rbf", False, 31.5)
    add_job(sweep, "rbf", False, 99.0, status="failed")
    cells = cells_of(SweepTable.of("kernels", NODE), read_outcomes(sweep, []))
    cell = cells[("rbf",), "false"]
    assert (cell.mean, cell.text) == (31.0, "31 (1 diverged)")


def test_where_picks_the_jobs_of_a_table(sweep: Path) -> None:
    table = SweepTable.of("kernels", NODE | {"where": {"model.symmetric": True}})
    cells = cells_of(table, read_outcomes(sweep, PLANNED))
    assert {key: cell.text for key, cell in cells.items()} == {
        (("linear",), "true"): "diverged", (("rbf",), "true"): "-",
    }  # fmt: skip
    nobody = SweepTable.of("nobody", NODE | {"where": {"model.kernel": "cubic"}})
    show_sweep_tables(sweep, [nobody], PLANNED)
    assert not list(sweep.glob("nobody.*"))


def test_a_metric_that_the_test_does_not_have_is_named(sweep: Path) -> None:
    table = SweepTable.of("kernels", NODE | {"metric": "accuracy"})
    cell = cells_of(table, read_outcomes(sweep, []))[("rbf",), "false"]
    assert cell.lost == (("failed", "the test has no accuracy, only bleu, loss"),)


def test_one_table_or_several_by_name() -> None:
    assert [table.name for table in tables_of({"table": NODE})] == ["table"]
    several = tables_of({"tables": {"a": NODE, "b": {**NODE, "rows": ["x.y", "z"]}}})
    assert [(table.name, table.heads) for table in several] == [
        ("a", ["kernel"]),
        ("b", ["y", "z"]),
    ]
    assert tables_of(None) == tables_of({"grid": {}}) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"best": "most"}, "has best: most; give min or max"),
        ({"rows": []}, "needs an entry 'rows'"),
        ({"colums": "x"}, "has an entry 'colums'; did you mean columns?"),
    ],
)
def test_a_table_that_cannot_be_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refusal:
        SweepTable.of("kernels", NODE | changed)
    assert f"the sweep's table kernels {said}" == str(refusal.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [("true", "x=true"), ("1e-05", "x=1e-05"), ("null", "x=null"), ("rbf", "rbf"), ("hh4", "hh4")],
)
def test_a_value_that_tells_nothing_gets_its_name(value: str, said: str) -> None:
    assert label("task.x", value) == said
