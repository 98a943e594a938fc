"""`ensemble` as it is typed, on files as people have them."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.ensemble import COMMAND as MEASURED
from benchmarks.ensemble import write_submissions
from equipoise import commands
from equipoise.commands.ensemble import _parser
from equipoise.commands.ensemble.submissions import read_submission, read_truth
from equipoise.errors import UserError
from equipoise.report.couplings import YARDSTICKS

ROOT = Path(__file__).parents[3]
COMMAND = re.compile(r"^    (python -m equipoise ensemble (?:[^\\\n]|\\\n)*)$", re.MULTILINE)
DRAWN = ("weights", "correlation", "drop_best")
PICTURES = {f"{name}.{ending}" for name in DRAWN for ending in ("png", "svg")}
TABLES = {"weights.csv", "scores.csv", "scores.json", "drop_best.csv", "submission.csv"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with truth.csv and predictions/, of which the first is the best."""
    folder = tmp_path_factory.mktemp("files")
    write_submissions(folder, 13, 4000)
    return folder


def words_for(files: Path, output: Path, *further: str) -> list[str]:
    predictions = sorted(str(file) for file in (files / "predictions").glob("*.csv"))
    return [*predictions, "--truth", str(files / "truth.csv"), "--output", str(output), *further]


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module", params=["single", "per_type"])
def folder(
    request: pytest.FixtureRequest, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What the command writes."""
    output: Path = tmp_path_factory.mktemp(request.param) / "ensemble"
    assert commands.run(["ensemble", *words_for(files, output, "--mode", request.param)]) == 0
    return output


def results(folder: Path) -> Any:
    return json.loads((folder / "scores.json").read_text())


def test_it_writes_what_the_page_says_and_nothing_else(folder: Path) -> None:
    names = {file.name for file in folder.iterdir()}
    assert names == {"index.html", *PICTURES, *TABLES}
    page = (folder / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    for words in ("fitted on half of the truth", "Optimality gap of the weights", "median scheme"):
        assert words in page


def test_the_ensemble_is_the_best_on_the_held_out_half(folder: Path) -> None:
    scores = results(folder)["scores"]["held_out"]
    means = {name: of["mean_log_mae"] for name, of in scores.items()}
    assert min(means, key=lambda name: means[name]) == "ensemble"
    assert means["ensemble"] < means["best single"] - 0.1
    assert max(results(folder)["gap"].values()) < 1e-3
    for of in scores.values():
        assert of["mean_log_mae"] == pytest.approx(np.mean(list(of["log_mae"].values())))


def test_the_blend_has_the_score_that_is_told(files: Path, folder: Path) -> None:
    truth, blend = read_truth(files / "truth.csv"), read_submission(folder / "submission.csv")
    errors = np.abs(blend.value[blend.places(truth)] - truth.value)
    scores, counts = results(folder)["scores"], results(folder)["couplings"]
    for number, name in enumerate(counts["fitted"], start=1):
        sizes = [counts[half][name] for half in ("fitted", "held_out")]
        halves = [scores[half]["ensemble"]["mae"][name] for half in ("fitted", "held_out")]
        assert errors[truth.kind == number].mean() == pytest.approx(
            np.average(halves, weights=sizes), rel=1e-5
        )


def test_the_weights_are_those_of_the_blend(files: Path, folder: Path) -> None:
    mode, rows = results(folder)["mode"], rows_of(folder / "weights.csv")
    columns = [name for name in rows[0] if name != "submission"]
    assert len(columns) == (1 if mode == "single" else 8)
    for column in columns:
        assert sum(float(row[column]) for row in rows) == pytest.approx(1)
    truth, blend = read_truth(files / "truth.csv"), read_submission(folder / "submission.csv")
    value = np.zeros(len(truth))
    for row in rows:
        one = read_submission(files / "predictions" / f"{row['submission']}.csv")
        weights = np.array([float(row[column]) for column in columns])
        value += one.value[one.places(truth)] * weights[truth.kind - 1 if len(columns) > 1 else 0]
    assert blend.value[blend.places(truth)] == pytest.approx(value, abs=1e-5)


def test_the_tables_agree(folder: Path) -> None:
    told = results(folder)
    dropped = rows_of(folder / "drop_best.csv")
    assert [int(row["dropped"]) for row in dropped] == [0, 1, 5, 10]
    held_out = told["scores"]["held_out"]
    assert float(dropped[0]["ensemble"]) == held_out["ensemble"]["mean_log_mae"]
    assert float(dropped[0]["best_single"]) == held_out["best single"]["mean_log_mae"]
    rows = rows_of(folder / "scores.csv")
    assert len(rows) == 2 * (6 + 13)
    blends = {row["blend"]: row for row in rows if row["blend"] and row["half"] == "held_out"}
    for name, of in held_out.items():
        assert float(blends[name]["3JHN"]) == of["log_mae"]["3JHN"]
    best = next(row for row in rows if row["submission"] and row["half"] == "held_out")
    assert best["submission"] == dropped[0]["best"] == "team_001"


def test_it_tells_what_it_read_and_found(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = (files / "truth.csv").read_text().splitlines()
    more = tmp_path / "more.csv"
    more.write_text("\n".join([*truth, "1,1JHC,90.5", "2,1JHC,91.5"]) + "\n")
    words = words_for(files, tmp_path / "out", "--truth", str(more), "--solver", "adam")
    assert commands.run(["ensemble", *words, "--yardsticks"]) == 0
    printed = capsys.readouterr().out
    assert "13 submissions of 4,000 couplings" in printed
    assert "left out: 2 couplings of the truth that no submission has" in printed
    assert "MB, mapped from disk" in printed
    assert re.search(r"│ median scheme +│ -\d\.\d+ +│", printed)
    assert "optimality gap of the weights" in printed
    assert "weights were fitted on half of the truth" in printed
    assert all(f"{score:.3f}  {name}" in printed for name, score in YARDSTICKS.items())
    assert results(tmp_path / "out")["couplings"]["left_out"] == 2
    assert results(tmp_path / "out")["solver"] == "adam"


def test_yardsticks_are_shown_for_the_molecules_of_the_competition(
    files: Path, tmp_path: Path
) -> None:
    lines = (files / "truth.csv").read_text().splitlines()
    for begin, shown in (("dsgdb9nsd_00", True), ("other_", False)):
        named = [f"{begin}1,{line}" for line in lines[1:]]
        (tmp_path / "truth.csv").write_text("\n".join([f"molecule_name,{lines[0]}", *named]))
        output = tmp_path / begin
        words = words_for(files, output, "--truth", str(tmp_path / "truth.csv"))
        assert commands.run(["ensemble", *words[:2], *words[13:]]) == 0
        assert bool(results(output)["yardsticks"]) == shown


def test_a_folder_of_its_own_where_none_is_named(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = words_for(files, tmp_path)
    place = words.index("--output")
    assert commands.run(["ensemble", *words[:2], *words[place - 2 : place]]) == 0
    (folder,) = (tmp_path / "ensembles").iterdir()
    assert (folder / "index.html").is_file()


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (["--seed", "-1"], "--seed -1 must be from 0 to 4294967295"),
        (["--keep", "14"], "--keep 14 must be from 1 to the 13 submissions"),
        (["--middle", "4"], "--middle 4 must be from 1 to --keep 9, both even or both odd"),
        (["--mode", "both"], "invalid choice: 'both'"),
        (["--output", "full"], "--output=full is not empty; choose a new folder"),
        (["--truth", "no.csv"], "no.csv does not exist"),
        (["--truth", "untyped.csv"], "untyped.csv: the first line has no type"),
        (["predictions/*.csv"], "predictions/\\*.csv does not exist"),
    ],
)
def test_what_cannot_be_done_is_refused(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, further: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "untyped.csv").write_text("id,scalar_coupling_constant\n1,2\n")
    with pytest.raises(UserError, match=message):
        commands.run(["ensemble", *words_for(files, tmp_path / "out", *further)])
    assert not (tmp_path / "out").exists()


def test_one_submission_is_no_ensemble(files: Path, tmp_path: Path) -> None:
    words = words_for(files, tmp_path / "out")
    with pytest.raises(UserError, match="give at least two"):
        commands.run(["ensemble", words[0], *words[13:]])


def test_a_bad_submission_leaves_no_folder(files: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("id,scalar_coupling_constant\n1,2\n")
    with pytest.raises(UserError, match=r"bad\.csv lacks"):
        commands.run(["ensemble", *words_for(files, tmp_path / "out" / "in", str(bad))])
    assert not (tmp_path / "out").exists()


def test_the_commands_of_the_page_are_understood() -> None:
    found = COMMAND.findall((ROOT / "docs" / "ensemble.md").read_text())
    assert len(found) >= 2
    for command in found:
        arguments = _parser().parsed(shlex.split(command.replace("\\\n", " "))[4:])
        assert arguments.predictions
        assert arguments.truth


@pytest.mark.end_to_end
def test_many_couplings_in_little_memory(tmp_path: Path) -> None:
    """50 submissions of 200,000 couplings are what benchmarks/ensemble.py measures."""
    write_submissions(tmp_path, 20, 20_000)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words_for(tmp_path, tmp_path / "out")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = re.search(r"torch loaded: False\npeak (\d+) MB", done.stdout)
    assert told, done.stdout
    assert int(told[1]) < 600
    scores = results(tmp_path / "out")["scores"]["held_out"]
    for beaten in ("best single", "median", "mean", "median scheme"):
        assert scores["ensemble"]["mean_log_mae"] < scores[beaten]["mean_log_mae"] - 0.01


@pytest.mark.parametrize("name", ["nothing*.csv", "folder"])
def test_a_name_of_no_file_alone_is_told_as_such(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    truth = tmp_path / "truth.csv"
    words = ["ensemble", str(tmp_path / name), "--truth", str(truth)]
    with pytest.raises(UserError, match="does not exist or is not a file"):
        commands.run(words)
