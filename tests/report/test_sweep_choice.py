"""The validation chooses from a search, and the test only tells what was chosen."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from equipoise.errors import UserError
from equipoise.report.sweep_choice import Choice, show_choice
from tests.report.test_summary import write_job

NODE = {"metric": "val/loss", "among": "model.log_strength"}


def add_job(sweep: Path, typed: list[str], val: float | None, test: float) -> None:
    number = len(list(sweep.iterdir()))
    folder = write_job(sweep, number, f"{number}_job", typed, test)
    file = folder / "metrics.json"
    told = {"val": {"loss": val}, "details": {"lambda": -float(number), "outer": {"steps": 1}}}
    file.write_text(json.dumps(json.loads(file.read_text()) | told))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed, losses in ((0, (3.0, 1.0, 2.0)), (1, (0.5, None, 4.0))):
        for strength, val in enumerate(losses):
            typed = [f"model.log_strength={strength}", f"seed={seed}"]
            add_job(tmp_path, typed, val, test=10.0 - (val or 0.0))
    write_job(tmp_path, 6, "6_job", ["model.log_strength=3", "seed=1"], None)
    return tmp_path


def chosen(sweep: Path, **changed: str) -> list[tuple[str, str, str]]:
    show_choice(sweep, Choice.of(NODE | changed))
    with (sweep / "choice.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["rank"] == "1"]
    return [(row["seed"], row["model.log_strength"], row["test loss"]) for row in rows]


def test_one_is_chosen_for_each_seed_whatever_its_test(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chosen(sweep) == [("0", "1", "9"), ("1", "0", "9.5")]
    printed = capsys.readouterr().out
    assert "chosen from 5 jobs by the validation's loss" in printed
    assert "the 5 jobs trained for 5 s" in printed
    with (sweep / "choice.csv").open(newline="") as file:
        assert [row["lambda"] for row in csv.DictReader(file)] == ["-1", "-2", "-0", "-3", "-5"]


def test_the_highest_may_be_the_best(sweep: Path) -> None:
    assert chosen(sweep, best="max") == [("0", "0", "7"), ("1", "2", "6")]


def test_without_a_job_that_has_the_metric_nothing_is_chosen(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_choice(sweep, Choice.of(NODE | {"metric": "val/bleu"}))
    show_choice(sweep, Choice.of({}))
    assert capsys.readouterr().out == ""
    assert not (sweep / "choice.csv").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"best": "most"}, "has best: most; give min or max"),
        ({"among": None}, "needs an entry 'among'"),
        ({"amnog": "x"}, "has an entry 'amnog'; did you mean among?"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refusal:
        Choice.of(NODE | changed)
    assert f"the sweep's choice {said}" == str(refusal.value)
