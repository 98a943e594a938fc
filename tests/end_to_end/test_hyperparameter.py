"""Hyper-parameters on the real command line: what a run finds, shows and leaves, and evaluates."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

import equipoise
from equipoise.running.api import evaluate

pytestmark = pytest.mark.end_to_end
SHORT = ("task=hyperparameter", "trainer.max_epochs=4")
QUIET = ("callbacks.report=null", "callbacks.progress=null", "trainer.enable_progress_bar=false")


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hyperparameter") / "run"
    equipoise.run(*SHORT, "gradient=shine", "model.strengths=feature", f"run_dir={folder}")
    return folder


def test_the_command_ends_with_what_it_found(command: Any, tmp_path: Path) -> None:
    done = command("train.py", *SHORT, "gradient=shine", f"run_dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "warning" not in done.stderr.lower()
    metrics = read(tmp_path / "run")
    details = metrics["details"]
    assert isinstance(details["lambda"], float)
    assert details["lambda"] < 0.0
    assert details["outer"]["steps"] == metrics["steps"] == 4
    assert metrics["test"]["accuracy"] > 0.9
    assert 0.0 < metrics["test"]["loss"] < 0.25


def test_a_run_leaves_a_curve_a_table_and_pictures(trained: Path) -> None:
    steps = [row for row in rows_of(trained / "metrics.csv") if row["train/loss"]]
    assert len(steps) == 4
    for name in ("suboptimality", "inner_iterations", "linear_iterations", "hypergradient",
                 "seconds"):  # fmt: skip
        assert all(math.isfinite(float(row[f"train/{name}"])) for row in steps)
    losses = [float(row["train/loss"]) for row in steps]
    assert losses[-1] < losses[0]
    found = rows_of(trained / "report" / "hyperparameters.csv")
    assert [float(row["value"]) for row in found] == pytest.approx(
        read(trained)["details"]["lambda"], abs=1e-6
    )
    page = (trained / "report" / "index.html").read_text()
    for picture in ("outer_loss.png", "lambda.png"):
        assert (trained / "report" / picture).is_file()
        assert picture in page


@pytest.mark.parametrize("words", [(), ("task.batch_size=7",), ("gradient=exact",),
                                   ("solver=anderson", "solver.tol=1e-7", "solver.max_steps=1000",
                                    "gradient=jfb")])  # fmt: skip
def test_an_evaluation_reproduces_the_test(
    trained: Path, words: tuple[str, ...], tmp_path: Path
) -> None:
    found = evaluate(
        f"ckpt_path={trained}/checkpoints/best.ckpt", f"run_dir={tmp_path}/tested", *words, *QUIET
    )
    assert found["test"] == pytest.approx(read(trained)["test"], rel=1e-4)
    assert found["details"]["lambda"] == read(trained)["details"]["lambda"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trainer.precision=bf16-true",), "too coarse"),
        (
            ("task.data=sparse", "task.rows=60", "task.columns=200", "task.density=0.1",
             "model.bounds=[-700,0]", "model.log_strength=-700"),
            "singular or indefinite",
        ),
        (("model.bounds=[1,-1]",), "bounds must be a lower and a higher number"),
        (("model.log_strength=13",), "lies outside of bounds"),
        (("model.log_strength=710", "model.bounds=[-700,710]"), "model.log_strength=710 must be"),
        (("model=kernel_ridge", "model.strengths=feature"), "is not one of one, coefficient"),
        (("model=kernel_ridge", "task.data=sparse", "task.rows=60", "task.columns=20",
          "task.density=0.5"),
         "takes no sparse tables"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_a_sentence(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(equipoise.errors.UserError) as caught:
        equipoise.run(*SHORT, *QUIET, *words, f"run_dir={tmp_path}/run")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_shine_finds_a_strength_as_good_as_a_grid_of_twenty(tmp_path: Path) -> None:
    words = ("task=hyperparameter", *QUIET)
    found = equipoise.run(*words, "gradient=shine", f"run_dir={tmp_path}/shine")
    grid = [
        equipoise.run(
            *words, f"model.log_strength={-12 + 24 * k / 19:.3f}", "trainer.max_epochs=1",
            f"run_dir={tmp_path}/{k}",
        )
        for k in range(20)
    ]  # fmt: skip
    chosen = min(grid, key=lambda metrics: metrics["val"]["loss"])
    assert found["val"]["loss"] <= chosen["val"]["loss"] + 1e-6
    assert found["test"]["loss"] <= chosen["test"]["loss"] + 1e-3
    assert found["seconds"] < sum(metrics["seconds"] for metrics in grid)
