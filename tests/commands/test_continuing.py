"""`resume=auto` of a multirun: which folder it goes on in, and what each of its jobs does there."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest

from equipoise.commands import exit_status, train
from equipoise.commands.continuing import is_asked, sweep_to_resume, without_resume
from equipoise.errors import UserError
from equipoise.running import sweep_record
from tests.commands.test_train import SMALL

TINY = [*SMALL, "trainer.limit_val_batches=1", "trainer.limit_test_batches=1",
        "callbacks.progress=null", "trainer.enable_progress_bar=false"]  # fmt: skip
SWEPT = ["-m", "optimizer.lr=1e-3,-1.0,1e-2,1e-4,1e-5", *TINY]
NAMES = ["0_lr-0.001", "1_lr--1.0", "2_lr-0.01", "3_lr-0.0001", "4_lr-1e-05"]

pytestmark = pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    return tmp_path


def status_of(*words: str) -> int:
    return exit_status(train.main, words)


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def changed(folder: Path) -> dict[str, int]:
    """When the results of each job were written."""
    files = [folder / name / "metrics.json" for name in NAMES]
    return {file.parent.name: file.stat().st_mtime_ns for file in files if file.is_file()}


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.slow
def test_each_job_does_what_it_has_left_to_do(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is completed, one failed, one was killed with a checkpoint, one without, one is gone."""
    assert status_of(*SWEPT, "resume=auto") == 1  # nothing to go on with: a new sweep
    assert "a new one begins" in capsys.readouterr().out
    (sweep,) = (here / "multirun").iterdir()
    whole, before = rows(sweep), changed(sweep)
    assert list(whole) == NAMES
    assert (sweep / "1_lr--1.0" / "error.log").is_file()
    (sweep / "2_lr-0.01" / "metrics.json").unlink()
    killed = sweep / "3_lr-0.0001"
    (killed / "metrics.json").unlink()
    shutil.rmtree(killed / "checkpoints")
    shutil.rmtree(sweep / "4_lr-1e-05")

    assert status_of(*SWEPT, "resume=auto") == 1
    said = capsys.readouterr()
    assert [path.name for path in (here / "multirun").iterdir()] == [sweep.name]
    assert f"continues the sweep in multirun/{sweep.name}; of its 5 jobs, 1 are" in said.out
    assert said.out.count("completed before") == 1
    assert "2_lr-0.01 after step 1" in said.out
    assert "error: 1_lr--1.0: optimizer.lr=-1.0 must be at least 0" in said.err
    assert "1 of 5 jobs are not finished" in said.out
    after = rows(sweep)
    assert list(after) == NAMES
    of_training = {"seconds": "", "backward nfe": ""}  # which one of them did not do again
    for name in NAMES:
        assert after[name] | of_training == whole[name] | of_training
    assert changed(sweep)["0_lr-0.001"] == before["0_lr-0.001"]
    assert metrics(sweep / "4_lr-1e-05")["status"] == "completed"

    where = f"hydra.sweep.dir=multirun/{sweep.name}"
    assert status_of(*SWEPT, "seed=1", where, "resume=auto") == 2
    assert "was begun with no seed, not with seed=1: give the same" in capsys.readouterr().err
    (here / "other").mkdir()
    (here / "other" / "notes.txt").write_text("mine")
    assert status_of(*SWEPT, "hydra.sweep.dir=other", "resume=auto") == 2
    assert "other is not the folder of a sweep that can go on" in capsys.readouterr().err
    assert (here / "other" / "notes.txt").read_text() == "mine"


def test_a_finished_sweep_starts_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", "seed=1", *TINY, "hydra.sweep.dir=s", "resume=auto"]
    assert status_of(*words) == 0
    before = (here / "s" / "0" / "metrics.json").read_text()
    capsys.readouterr()
    assert status_of(*words, "hydra/launcher=basic") == 0
    assert "run folder" not in capsys.readouterr().out
    assert (here / "s" / "0" / "metrics.json").read_text() == before


def test_values_that_are_drawn_cannot_go_on() -> None:
    place = Path("s")
    place.mkdir()
    with pytest.raises(UserError, match="leave one of the two out"):
        sweep_to_resume(["hydra/sweeper=optuna", "seed=1,2"], place, ("completed",))


def test_resume_is_the_sweeps_and_takes_auto_alone() -> None:
    assert without_resume(["seed=1", "resume=auto"]) == ["seed=1"]
    assert is_asked(["resume=auto"])
    assert not is_asked(["resume=auto", "resume=null"])
    with pytest.raises(UserError, match="resume takes auto or null"):
        without_resume(["resume=yes"])


def test_the_words_that_say_where_are_none_of_the_jobs() -> None:
    words = ["seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=3", "resume=auto",
             "hydra.sweep.dir=s", "seed=1", "+trainer.profiler=simple"]  # fmt: skip
    assert sweep_record.of_the_jobs(words) == {
        "seed": "seed=1", "trainer.profiler": "+trainer.profiler=simple"
    }  # fmt: skip


def test_the_newest_unfinished_sweep_of_the_same_words_is_found(here: Path) -> None:
    for number, words in enumerate([["seed=1,2"], ["seed=1,2"], ["seed=3"]]):
        folder = here / "multirun" / str(number)
        folder.mkdir(parents=True)
        sweep_record.record(folder, words, 2)
    found = sweep_record.newest_unfinished(["seed=1,2", "resume=auto"], ("completed",))
    assert found == Path("multirun/1")
    assert sweep_record.newest_unfinished(["seed=4"], ("completed",)) is None
