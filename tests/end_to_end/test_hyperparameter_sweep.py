"""Estimators of the hyper-gradient race on the command line, and searches are their baselines."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import equipoise
from equipoise.config.compose import compose, with_grid
from equipoise.report.curves import CurveFile

SHORT = ("trainer.max_epochs=3", "callbacks.report=null")


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.slow
@pytest.mark.end_to_end
def test_a_multirun_of_estimators_ends_in_their_race(command, tmp_path: Path) -> None:
    done = command("train.py", "-m", "task=hyperparameter", "gradient=exact,shine", *SHORT)
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    rows = rows_of(sweep / "suboptimality.csv")
    assert [row["gradient"] for row in rows] == ["exact", "shine"]
    for row in rows:
        metrics = json.loads((sweep / row["run"] / "metrics.json").read_text())
        assert float(row["seconds"]) == pytest.approx(metrics["train"]["seconds"], rel=1e-4)
        assert (float(row["linear iterations"]) > 0) is (row["gradient"] == "exact")
        assert float(row["inner iterations"]) >= 3
    assert (sweep / "suboptimality.png").is_file()
    assert "outer loss, and seconds until" in done.stdout


@pytest.mark.end_to_end
def test_a_grid_ends_in_the_point_that_validation_chooses(command, tmp_path: Path) -> None:
    done = command("train.py", "-m", "sweep=hyperparameter_grid", "model.log_strength=-5,3")
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    first, second = rows_of(sweep / "choice.csv")
    assert (first["rank"], first["lambda"], second["lambda"]) == ("1", "-5", "3")
    assert float(first["val loss"]) < float(second["val loss"])
    assert "chosen from 2 jobs by the validation's loss" in done.stdout
    assert not (sweep / "suboptimality.csv").exists()


@pytest.mark.parametrize(
    ("name", "key", "first", "last"),
    [("grid", "model.log_strength", "-12", "7"), ("random", "model.drawn_by", "1", "20")],
)
def test_a_search_solves_each_of_20_points_once(name: str, key: str, first: str, last: str) -> None:
    swept, *_ = with_grid([f"sweep=hyperparameter_{name}", "seed=0,1"])
    listed, _, values = swept.partition("=")
    points = values.split(",")
    assert (listed, len(set(points)), points[0], points[-1]) == (key, 20, first, last)
    config = compose([f"sweep=hyperparameter_{name}", f"{key}={last}"]).config
    assert (config.trainer.max_epochs, config.task.objective.decrease) == (1, "constant")
    assert config.task.objective.first_tolerance == config.solver.tol
    assert config.sweep.choice.among == key
    assert (config.sweep.choice.metric, config.sweep.choice.best) == ("val/loss", "min")


def test_validation_judges_the_solution_and_leaves_the_training_alone(tmp_path: Path) -> None:
    short = ("task=hyperparameter", "gradient=shine", *SHORT)
    curves = []
    for every in (1, 3):
        folder = tmp_path / str(every)
        equipoise.run(*short, f"trainer.check_val_every_n_epoch={every}", f"run_dir={folder}")
        curves.append(CurveFile(folder / "metrics.csv"))
    often, once = curves
    for column in ("train/loss", "train/inner_iterations", "train/hypergradient"):
        assert often.points(column) == once.points(column)
    assert often.points("val/loss")[-1:] == once.points("val/loss")
    (_, exact), (_, loose) = often.points("val/loss")[-1], often.points("train/loss")[-1]
    metrics = equipoise.run(
        "sweep=hyperparameter_grid", f"run_dir={tmp_path}/point",
        f"model.log_strength={read_lambda(tmp_path / '1')}",
    )  # fmt: skip
    assert metrics["val"]["loss"] == pytest.approx(exact, rel=1e-5)
    assert abs(loose - exact) > 1e-5


def read_lambda(folder: Path) -> float:
    return float(json.loads((folder / "metrics.json").read_text())["details"]["lambda"])
