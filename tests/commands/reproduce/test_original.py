"""By which words a run is made again, and how far."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from equipoise.commands.reproduce.original import original, run_folder
from equipoise.errors import UserError
from equipoise.running import folders
from tests.commands.reproduce.runs import WORDS, metrics, start, write_run

STOP = "+callbacks.stop_after={_target_: equipoise.callbacks.StopAfter, steps: 3}"


def test_a_whole_run_is_made_again_by_its_own_words(tmp_path: Path) -> None:
    typed = [*WORDS, "run_dir=here", "resume=auto", "logger=[csv,wandb]", "logger.wandb.name=x",
             "hydra.run.dir=there", "hydra.searchpath=[file://mine]",
             "callbacks.trial.number=3"]  # fmt: skip
    run = original(write_run(tmp_path / "run", metrics(), [start(typed)]), ["seed=8"], None)
    assert run.words == [*WORDS, "hydra.searchpath=[file://mine]", "logger=csv", "seed=8"]
    assert (run.steps, run.said, run.purpose) == (None, "all of its steps", "train")
    assert run.deterministic


def test_a_run_of_an_earlier_revision_tells_its_words_too(tmp_path: Path) -> None:
    assert original(write_run(tmp_path / "run", metrics()), [], None).words == [
        *WORDS,
        "logger=csv",
    ]


def test_an_evaluation_is_one_again(tmp_path: Path) -> None:
    command = "python evaluate.py ckpt_path=a/last.ckpt solver.max_steps=9"
    run = original(write_run(tmp_path / "run", metrics(command=command)), [], None)
    assert (run.purpose, run.words) == ("evaluate", ["ckpt_path=a/last.ckpt", "solver.max_steps=9"])
    with pytest.raises(UserError, match="is an evaluation, which has no optimiser steps"):
        original(tmp_path / "run", [], 3)


@pytest.mark.parametrize(
    ("reached", "asked", "steps"),
    [
        (metrics(), 3, 3),
        (metrics(), 4, None),  # no less than all
        (metrics(), 9, None),
        (metrics(status="failed"), None, None),
        (metrics(status="interrupted", steps=3), None, 3),
        (metrics(status="interrupted", steps=3), 2, 2),
        (metrics(details={"ended_by": "max_time"}, steps=3), None, 3),
        (metrics(details={"ended_by": "pruned"}, steps=3), None, 3),
        (None, None, 4),  # killed: as far as the curve
    ],
)
def test_a_run_that_was_cut_short_is_cut_short_again(
    tmp_path: Path, reached: Any, asked: int | None, steps: int | None
) -> None:
    run = original(write_run(tmp_path / "run", reached, [start()]), [], asked)
    assert run.steps == steps
    assert (STOP in run.words) == (steps == 3)
    by_clock = reached is not None and reached["details"]["ended_by"] == "max_time"
    assert ("trainer.max_time=null" in run.words) == by_clock


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["resume=auto", "run_dir=x"], None),
        ([*WORDS, "resume=auto", "task.num_workers=2", "logger=wandb"], None),
        (["ckpt_path=x", "optimizer.lr=0.1"], 3),
    ],
)
def test_a_run_that_was_resumed_with_other_settings_is_compared_up_to_there(
    tmp_path: Path, words: list[str], steps: int | None
) -> None:
    starts = [start(), start(words, step=3)]
    run = original(write_run(tmp_path / "run", metrics(), starts), [], None)
    assert run.steps == steps
    assert ("resumed with optimizer.lr=0.1" in run.said) == (steps == 3)


def test_a_run_that_went_on_in_another_folder_begins_at_its_checkpoint(tmp_path: Path) -> None:
    starts = [start(["ckpt_path=other/last.ckpt", "run_dir=x"], step=2)]
    run = original(write_run(tmp_path / "run", metrics(), starts), [], None)
    assert run.words == ["ckpt_path=other/last.ckpt", "logger=csv"]


def test_the_run_of_a_file_is_found(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", metrics())
    for name in (".", "metrics.json", "checkpoints/last.ckpt"):
        assert run_folder(folder / name).resolve() == folder
    assert run_folder(tmp_path) is None


def test_what_cannot_be_made_again_is_one_sentence(tmp_path: Path) -> None:
    nothing = write_run(tmp_path / "nothing", metrics(status="interrupted", steps=0), rows=[])
    with pytest.raises(UserError, match="ended before its first step: nothing can be compared"):
        original(nothing, [], None)
    lost = write_run(tmp_path / "lost", metrics())
    (lost / "overrides.json").unlink()
    with pytest.raises(UserError, match="does not say which command began its run"):
        original(lost, [], None)
    damaged = write_run(tmp_path / "damaged", metrics())
    (damaged / "metrics.json").write_text("[1")
    with pytest.raises(UserError, match="is no JSON"):
        original(damaged, [], None)


def test_a_run_at_work_is_waited_for(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", metrics())
    file = os.open(folder / folders.LOCK, os.O_RDWR | os.O_CREAT)
    child = os.fork()
    if child == 0:  # a lock of this process would not hold against itself
        fcntl.lockf(file, fcntl.LOCK_EX)
        os.write(file, b"x")
        signal.pause()
    try:
        while not (folder / folders.LOCK).stat().st_size:
            pass
        with pytest.raises(UserError, match="a run is active"):
            original(folder, [], None)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(file)
