"""The profile of a run on a GPU: its parts wait for the device, and batches come pinned."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from equipoise.commands import run
from equipoise.data import Digits

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("gradient", ["phantom", "exact"])
def test_the_parts_of_a_step_on_a_gpu(
    gradient: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["task=digits", f"gradient={gradient}", "strategy=gpu", "callbacks.progress=null"]
    assert run(["profile", *words, "steps=4", f"run_dir={tmp_path}/run"]) == 0
    assert "each part waits for the GPU" in capsys.readouterr().out
    with (tmp_path / "run" / "profile.csv").open(newline="") as file:
        rows = {row["part"]: float(row["milliseconds"]) for row in csv.DictReader(file)}
    of_a_step = ("step", "limit", "median step with timers", "median step without timers")
    spent = sum(time for name, time in rows.items() if name not in of_a_step)
    assert spent == pytest.approx(rows["step"], rel=1e-3)
    assert 0 < rows["limit"] < rows["step"]
    assert min(rows["evaluations of f"], rows["products with J^T"]) > 0


def test_batches_are_pinned_without_a_trainer_that_says_otherwise() -> None:
    data = Digits()
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["image"].is_pinned()
