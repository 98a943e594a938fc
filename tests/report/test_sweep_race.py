"""Jobs of the same seed and problem are measured by the lowest value of them all."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.errors import UserError
from equipoise.report.sweep_race import NEAR, Race, Runner, arrival, fields_of, show_race, within
from tests.report.test_summary import write_job

NODE = {
    "value": "val/loss", "against": "train/seconds", "label": "outer loss",
    "among": ["gradient", "solver", "task.objective"], "counts": ["train/inner_iterations"],
}  # fmt: skip
RACE = Race.of(NODE)
FILES = ("suboptimality.csv", "suboptimality.png")


def add_job(sweep: Path, typed: list[str], losses: Sequence[float] | None) -> str:
    """Write a job with a step of half a second and two iterations in each epoch; None: failed."""
    number = len(list(sweep.iterdir()))
    folder = write_job(sweep, number, f"{number}_job", typed, 1.0 if losses else None)
    lines = ["epoch,step,train/inner_iterations,train/seconds,val/loss"]
    for epoch, loss in enumerate(losses or ()):
        lines += [f"{epoch},{epoch + 1},2.0,{0.5 * (epoch + 1)},", f"{epoch},{epoch},,,{loss}"]
    (folder / "metrics.csv").write_text("\n".join(lines))
    return folder.name


def read(sweep: Path) -> list[dict[str, str]]:
    with (sweep / FILES[0]).open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_lowest_of_a_seed_is_the_measure_of_its_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_job(tmp_path, ["gradient=exact", "seed=0"], [2.0, 1.0, 1.0])
    add_job(tmp_path, ["gradient=exact", "seed=1"], [9.0, 8.0, 8.0])
    add_job(tmp_path, ["gradient=shine", "seed=0"], [1.0 + 0.9 * NEAR, 1.5])
    add_job(tmp_path, ["gradient=shine", "seed=1"], [9.0, 5.0])
    show_race(tmp_path, RACE)
    rows = {(row["gradient"], row["seed"]): row for row in read(tmp_path)}
    assert [row["seconds to within 0.001"] for row in read(tmp_path)] == ["1", "0.5", "", "1"]
    assert float(rows["exact", "1"]["relative to the lowest"]) == pytest.approx(0.6)
    assert rows["shine", "1"]["lowest outer loss"] == "5"
    assert (rows["exact", "0"]["seconds"], rows["shine", "0"]["seconds"]) == ("1.5", "1")
    assert (rows["exact", "0"]["inner iterations"]) == "6"
    assert (tmp_path / FILES[1]).read_bytes()[:4] == b"\x89PNG"
    printed = capsys.readouterr().out
    assert "outer loss, and seconds until it is within 0.001 of the lowest" in printed
    assert "not in" not in printed


def test_a_job_that_cannot_race_is_named_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for gradient in ("exact", "shine"):
        add_job(tmp_path, [f"gradient={gradient}", "seed=0"], [2.0, 1.0])
    failed = add_job(tmp_path, ["gradient=jfb", "seed=0"], None)
    lacking = add_job(tmp_path, ["gradient=neumann", "seed=0"], [math.nan])
    alone = add_job(tmp_path, ["gradient=exact", "seed=1"], [2.0, 1.0])
    show_race(tmp_path, RACE)
    assert [row["run"] for row in read(tmp_path)] == ["0_job", "1_job"]
    lines = capsys.readouterr().out.splitlines()
    assert f"not in suboptimality: {failed}: failed" in lines
    assert f"not in suboptimality: {lacking}: its metrics.csv has no column val/loss" in lines
    assert f"not in suboptimality: {alone}: alone in its problem and seed" in lines


def test_jobs_of_other_problems_do_not_race(tmp_path: Path) -> None:
    for data, low in (("digits", 1.0), ("breast_cancer", 7.0)):
        for every in ("null", "5"):
            typed = [f"task.data={data}", f"solver.opa_every={every}"]
            add_job(tmp_path, typed, [low + 1, low])
    show_race(tmp_path, RACE)
    assert [float(row["relative to the lowest"]) for row in read(tmp_path)] == [0.0] * 4


@pytest.mark.parametrize(
    "typed",
    [
        [["model.log_strength=0"], ["model.log_strength=1"]],
        [["gradient=exact", "seed=0"], ["gradient=shine", "seed=1"]],
    ],
)
def test_without_two_jobs_to_compare_there_is_no_race(
    typed: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for overrides in typed:
        add_job(tmp_path, overrides, [2.0, 1.0])
    show_race(tmp_path, RACE)
    show_race(tmp_path, Race.of(None))
    assert capsys.readouterr().out == ""
    assert not [name for name in FILES if (tmp_path / name).exists()]


def test_a_picture_of_many_ways_and_of_a_lowest_value_of_zero(tmp_path: Path) -> None:
    for tolerance in range(12):
        add_job(tmp_path, [f"task.objective.first_tolerance=1e-{tolerance}"], [1.0, 0.0])
    show_race(tmp_path, RACE)
    assert len(read(tmp_path)) == 12
    assert (tmp_path / FILES[1]).is_file()


def test_columns_of_the_same_rows_race_at_every_step(tmp_path: Path) -> None:
    race = Race.of(NODE | {"value": "train/loss", "counts": []})
    for gradient in ("exact", "shine"):
        name = add_job(tmp_path, [f"gradient={gradient}"], [1.0])
        lines = ["epoch,step,train/seconds,train/loss", "0,1,1.0,9.0", "0,2,2.0,3.0", "0,3,3.0,3.0"]
        (tmp_path / name / "metrics.csv").write_text("\n".join(lines))
    show_race(tmp_path, race)
    assert [row["seconds to within 0.001"] for row in read(tmp_path)] == ["2", "2"]


def test_counts_of_some_steps_are_no_sum(tmp_path: Path) -> None:
    for gradient in ("exact", "shine"):
        name = add_job(tmp_path, [f"gradient={gradient}"], [2.0, 1.0])
    file = tmp_path / name / "metrics.csv"
    file.write_text(file.read_text().replace("0,1,2.0,", "0,1,,"))
    show_race(tmp_path, RACE)
    assert [row["inner iterations"] for row in read(tmp_path)] == ["4", ""]


@pytest.mark.parametrize(
    ("key", "inside"),
    [("solver", True), ("solver.tol", True), ("solver@gradient.solver", True), ("gradient", True),
     ("task.objective.decrease", True), ("task", False), ("task.data", False), ("seed", False),
     ("solvers", False), ("eval_solver.tol", False)],
)  # fmt: skip
def test_what_is_below_a_group_belongs_to_it(key: str, inside: bool) -> None:
    assert within(key, NODE["among"]) is inside


LOSSES = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6)


@given(st.lists(LOSSES, min_size=2, max_size=4))
def test_somebody_arrives_and_nobody_before_a_near_value(all_losses: list[list[float]]) -> None:
    runners = [
        Runner(str(n), str(n), (), "0", {}, tuple(losses), tuple(range(len(losses))), {})
        for n, losses in enumerate(all_losses)
    ]
    (field,) = fields_of(runners)
    best = min(min(losses) for losses in all_losses)
    arrivals = [arrival(runner, best) for runner in field]
    assert any(place is not None for place in arrivals)
    for runner, place in zip(field, arrivals, strict=True):
        before = runner.values[: len(runner.values) if place is None else int(place)]
        assert all(value > best + NEAR * abs(best) for value in before)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"against": ""}, "needs an entry 'against'"),
        ({"valeu": "x"}, "has an entry 'valeu'; did you mean value?"),
    ],
)
def test_a_race_that_cannot_be_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refusal:
        Race.of(NODE | changed)
    assert f"the task's about.race {said}" == str(refusal.value)
