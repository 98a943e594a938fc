"""`python -m equipoise reproduce`: real runs that are made again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from equipoise import commands
from equipoise.errors import RunInterrupted, UserError
from equipoise.running.api import evaluate, run
from tests.commands.reproduce.runs import metrics, start, write_run
from tests.end_to_end.resuming import TASKS

WORDS = ("task=digits", "seed=7", *TASKS["digits"], "callbacks.report=null", "~callbacks.progress",
         "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1",
         "trainer.deterministic=true", "trainer.max_epochs=1")  # fmt: skip
pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    run(*WORDS, f"run_dir={folder}")
    return folder


@pytest.fixture
def a_run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same run, in the present folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "run")
    return Path("run")


def told(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "reproduction.json").read_text())
    return found


def test_a_run_is_made_again_to_the_same_bits(
    a_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.run(["reproduce", "run"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("equal to the bit") == 4
    assert printed.endswith("equal (asked for: the same bits): run_reproduced/reproduction.json\n")
    found = told("run_reproduced")
    assert found["equal"]
    assert found["deterministic"]
    assert found["settings"] == found["environment"] == {}
    assert {name for name, part in found["parts"].items() if part["compared"] > 10} == {
        "curve", "final metrics", "last.ckpt", "best.ckpt"
    }  # fmt: skip
    assert Path("run_reproduced/reproduction.png").is_file()


def test_another_setting_is_named_and_its_first_step(
    a_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "run/metrics.json", "optimizer.lr=0.002", "run_dir=again", "steps=2"]
    assert commands.run(words) == 1
    printed = capsys.readouterr().out
    assert "setting optimizer.lr: " in printed
    assert "its first 2 steps" in printed
    found = told("again")
    assert found["steps"] == 2
    assert found["parts"]["curve"]["result"].startswith("differs first at step ")
    assert found["parts"]["last.ckpt"]["result"] == "not compared: the run's is of step 5"
    with pytest.raises(UserError, match="run_dir=again is not empty"):
        commands.run(words)


@pytest.mark.slow
def test_an_interrupted_run_an_evaluation_and_a_run_that_went_on_are_made_again(
    a_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = "{_target_: equipoise.callbacks.StopAfter, steps: 3}"
    with pytest.raises(RunInterrupted):
        run(*WORDS, "run_dir=stopped", f"+callbacks.stop_after={stop}")
    shutil.copytree("stopped", "resumed")
    run("ckpt_path=resumed/checkpoints/last.ckpt", "run_dir=resumed", "~callbacks.stop_after",
        "trainer.max_epochs=2")  # fmt: skip
    evaluate("ckpt_path=run/checkpoints/best.ckpt", "solver.max_steps=6", "run_dir=evaluated")
    run("ckpt_path=stopped/checkpoints/last.ckpt", "run_dir=elsewhere", "~callbacks.stop_after",
        "resume=null")  # fmt: skip
    for name in ("stopped", "resumed", "evaluated", "elsewhere"):
        assert commands.run(["reproduce", name]) == 0, name
    assert told("stopped_reproduced")["parts"]["last.ckpt"]["result"] == "equal to the bit"
    assert "after which it was resumed with" in told("resumed_reproduced")["said"]
    assert told("evaluated_reproduced")["parts"]["final metrics"]["compared"] > 10
    assert told("elsewhere_reproduced")["parts"]["best.ckpt"]["result"] == "equal to the bit"


@pytest.mark.slow
def test_every_job_of_a_multirun_is_made_again(
    a_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        run(*WORDS, f"seed={seed}", f"run_dir=sweep/{seed}_seed-{seed}")
    assert commands.run(["reproduce", "sweep"]) == 0
    assert capsys.readouterr().out.endswith("2 of 2 runs are equal: sweep_reproduced\n")
    assert told("sweep_reproduced/2_seed-2")["equal"]


@pytest.mark.slow
def test_a_run_of_two_processes_is_made_again(a_run: Path) -> None:
    run(*WORDS, "strategy=ddp_cpu", "trainer.devices=2", "run_dir=two")
    assert commands.run(["reproduce", "two", "steps=2"]) == 0
    assert told("two_reproduced")["parts"]["curve"]["result"] == "equal to the bit"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "reproduce takes the folder of a run"),
        (["steps=3"], "reproduce takes the folder of a run"),
        (["run", "run"], "reproduce takes one run at a time"),
        (["ran"], "there is no folder ran"),
        (["empty"], "empty has no run"),
        (["note.txt"], "note.txt is not a file of a run"),
        (["run", "steps=0"], "steps=0 is not a number of optimiser steps"),
        (["run", "steps=all"], "steps=all is not a number of optimiser steps"),
        (["run", "tolerance=x"], "tolerance=x is not a relative difference"),
        (["run", "tolerance=2"], "tolerance=2 is not a relative difference"),
        (["run", "ckpt_path=x"], "ckpt_path=x: a run is repeated from its beginning"),
        (["run", "seed=1,2"], "seed=1,2: reproduce takes one value of each setting"),
        (["run", "solver.tolerence=1"], "solver has no setting|did you mean"),
        (["run", "--force"], "there is no flag --force"),
        (["run", "run_dir=run"], "run_dir=run is not empty"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("run"), metrics(), [start()])
    Path("empty").mkdir()
    Path("note.txt").write_text("note")
    with pytest.raises(UserError, match=said):
        commands.run(["reproduce", *words])
