"""Warm starts, budgets, learned starts and compaction from the real command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from equipoise.running.api import evaluate, run
from tests.end_to_end.conftest import SMALL

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
    pytest.mark.filterwarnings("ignore:.*of the test samples"),
]
QUIET = ("callbacks.report=null", "~callbacks.progress", "trainer.enable_progress_bar=false")
SHORT = [*SMALL, "task.batch_size=300", "trainer.max_epochs=2", "callbacks.report=null"]
Command = Callable[..., CompletedProcess[str]]


def metrics_of(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return loaded


@pytest.mark.slow
def test_from_the_command_line_they_are_told_in_the_curve_and_the_metrics(
    command: Command, tmp_path: Path
) -> None:
    done = command(
        "train.py", *SHORT, "callbacks=[default,warm_start,contraction_budget]",
        "callbacks.contraction_budget.every=3", "callbacks.contraction_budget.least=2",
        "callbacks.gradient_schedule.phases=[{start: 0.0, tol: 0.5}, {start: 0.6, tol: 0.1}]",
        "model.initializer=8", "run_dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    details = metrics_of(tmp_path / "run")["details"]
    assert [epoch["hit_rate"] for epoch in details["warm_start"]["epochs"]] == [0, 1]
    assert 2 <= details["contraction_budget"]["max_steps"]["model.equilibrium"] <= 4
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for column in ("warm_start/hit_rate", "budget/max_steps", "train/start_loss"):
        assert any(row[column] for row in rows), column


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["callbacks=[default,warm_start]", "equilibrium.random_start=0.5"], "leave one of them"),
        (["callbacks=[default,contraction_budget]", "solver.tol=0"], "contraction_budget.tol"),
        (["callbacks.gradient_schedule.phases=[{start: 0, gradient: unrolled, tol: 0.1}]"],
         "leave tol out"),
        (["callbacks=[default,warm_start]", "callbacks.warm_start.memory_mb=0"], "memory_mb"),
        (["model.initializer=0"], "initializer"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_what_has_no_sense_ends_with_one_sentence(
    words: list[str], told: str, command: Command
) -> None:
    done = command("train.py", *SHORT, *words, "run_dir=run")
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_warm_starts_save_a_third_of_the_late_evaluations_at_the_same_accuracy(
    tmp_path: Path,
) -> None:
    """Both runs of the digits as configured but for a tolerance of 1e-2 and a small rate."""
    words = ("solver.tol=1e-2", "optimizer.lr=1e-3", "trainer.max_epochs=12", *QUIET)
    cold = run(*words, f"run_dir={tmp_path / 'cold'}")
    warm = run(*words, "callbacks=[default,warm_start]", f"run_dir={tmp_path / 'warm'}")
    epochs = warm["details"]["warm_start"]["epochs"]
    with (tmp_path / "cold" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["solver/nfe_per_sample"]]
    late = [float(row["solver/nfe_per_sample"]) for row in rows if int(row["epoch"]) >= 6]
    saved = [epoch["nfe_per_sample"] for epoch in epochs[6:]]
    assert sum(saved) / len(saved) < 0.7 * sum(late) / len(late)
    assert warm["test"]["accuracy"] >= cold["test"]["accuracy"] - 0.02


@pytest.mark.slow
def test_compaction_in_an_evaluation_spends_less_on_the_same_predictions(tmp_path: Path) -> None:
    run("trainer.max_epochs=5", "solver.tol=1e-2", *QUIET, f"run_dir={tmp_path / 'run'}")
    checkpoint = f"ckpt_path={tmp_path / 'run' / 'checkpoints' / 'best.ckpt'}"
    words = (checkpoint, "solver.tol=1e-2", "solver.max_steps=40", "callbacks.report=null")
    whole = evaluate(*words, f"run_dir={tmp_path / 'whole'}")
    compact = evaluate(*words, "solver.compact_at=0.1", f"run_dir={tmp_path / 'compact'}")
    spent = [m["solver_stats"]["nfe_spent_per_sample"] for m in (whole, compact)]
    assert spent[0] == pytest.approx(whole["solver_stats"]["nfe_mean"], rel=0.1)
    assert spent[1] < 0.75 * spent[0]
    assert compact["test"]["accuracy"] == whole["test"]["accuracy"]
    assert compact["details"]["accuracy_per_class"] == whole["details"]["accuracy_per_class"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["gradient=exact"], ["gradient=neumann"], ["gradient=phantom"], ["gradient=jfb"],
        ["gradient=shine", "solver=broyden"], ["gradient=auto"],
        ["gradient=exact", "gradient.solver.tol=1e-4"],
    ],
)  # fmt: skip
def test_training_with_compaction_goes_the_same_way(words: list[str], tmp_path: Path) -> None:
    """Steps from the same weights differ by rounding alone, with every estimator."""
    losses = []
    for share in ("null", "0.1"):
        folder = tmp_path / share
        run(*SMALL, *words, "solver.max_steps=40", "solver.tol=1e-3", "task.batch_size=32",
            "trainer.max_epochs=1", "trainer.limit_train_batches=5", "trainer.limit_test_batches=1",
            f"solver.compact_at={share}", *QUIET, f"run_dir={folder}")  # fmt: skip
        with (folder / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        losses.append([float(row["train/loss"]) for row in rows if row["train/loss"]])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
