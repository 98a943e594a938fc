"""Where the run of a folder stands, and the words that go on from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.config.compose import compose, storable
from equipoise.errors import UserError
from equipoise.running.api import composed
from equipoise.running.resumption import RECORD, beginning, clear, first_readable, reopen, standing

HOLD = """
import sys
from pathlib import Path
from equipoise.running.folders import claim
claim(Path(sys.argv[1]), checkpoint=Path(sys.argv[1]) / "checkpoints" / "last.ckpt")
print("held", flush=True)
sys.stdin.read()
"""
WORDS = ("task=digits", "trainer.max_epochs=2", "~callbacks.report")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begun(folder: Path, *words: str) -> Path:
    """What a run leaves that was killed before its first checkpoint."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt.partial").write_bytes(b"half")
    (folder / RECORD).write_text(json.dumps(words))
    (folder / "metrics.csv").write_text("epoch,step\n0,1\n")
    return folder


def saved(folder: Path, *words: str, name: str = "last.ckpt", **entries: Any) -> Path:
    """The same with a checkpoint, of the configuration that the words make."""
    composition = compose(words)
    content = {
        "state_dict": {}, "config": storable(composition.config), "choices": composition.choices,
        "global_step": 14, "overrides": list(words), **entries,
    }  # fmt: skip
    torch.save(content, begun(folder, *words) / "checkpoints" / name)
    return folder


def finished(folder: Path, *words: str, epochs: int = 2) -> Path:
    trainer = dict(compose(words).config.trainer)
    lengths = {name: trainer[name] for name in ("max_epochs", "max_steps", "max_time")}
    saved(folder, *words)
    (folder / "config.yaml").write_text(json.dumps({"trainer": lengths}))
    metrics = {"status": "completed", "epochs": epochs, "steps": 14}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_a_folder_without_a_run_is_begun_anew(here: Path) -> None:
    (here / "empty").mkdir()
    for folder in (here / "none", here / "empty"):
        assert standing(folder).status == "anew"
        assert standing(folder).leftovers == frozenset()


def test_what_was_left_before_the_first_checkpoint_is_cleared(here: Path) -> None:
    found = standing(begun(here / "x"))
    assert found.status == "anew"
    clear(here / "x", found.leftovers)
    assert list((here / "x").iterdir()) == []


@pytest.mark.parametrize("name", ["letter.txt", "checkpoints/mine.txt", "sub/file"])
def test_what_no_run_leaves_is_never_cleared(here: Path, name: str) -> None:
    begun(here / "x")
    (here / "x" / name).parent.mkdir(exist_ok=True)
    (here / "x" / name).write_text("mine")
    with pytest.raises(UserError, match=f"no checkpoint to go on from, but {name.split('/f')[0]}"):
        standing(here / "x")
    assert (here / "x" / name).read_text() == "mine"


def test_a_checkpoint_that_no_run_has_left_is_gone_on_from_and_never_cleared(here: Path) -> None:
    begun(here / "x")
    mine = here / "x" / "checkpoints" / "mine.ckpt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    assert standing(here / "x").status == "resumable"
    with pytest.raises(UserError, match=r"mine\.ckpt"):
        first_readable(here / "x")
    assert mine.read_text() == "mine"


def test_a_folder_of_something_else_is_never_cleared(here: Path) -> None:
    (here / "x" / "report").mkdir(parents=True)
    with pytest.raises(UserError, match="report, which a run does not leave"):
        standing(here / "x")


def test_the_last_checkpoint_is_gone_on_from_and_else_the_best(here: Path) -> None:
    saved(here / "x", name="best.ckpt")
    assert standing(here / "x").checkpoint == here / "x" / "checkpoints" / "best.ckpt"
    (here / "x" / "checkpoints" / "last.ckpt").write_bytes(b"")
    found = standing(here / "x")
    assert (found.status, found.checkpoint) == (
        "resumable",
        here / "x" / "checkpoints" / "last.ckpt",
    )


def test_a_link_to_nothing_is_no_checkpoint(here: Path) -> None:
    for name in ("last.ckpt", "other.ckpt"):
        saved(here / name, name="best.ckpt")
        (here / name / "checkpoints" / name).symlink_to("gone")
        assert standing(here / name).checkpoint == here / name / "checkpoints" / "best.ckpt"


def test_a_link_to_nothing_is_no_record_of_a_run(here: Path) -> None:
    run = here / "runs" / "digits" / "mdeq" / "0"
    run.mkdir(parents=True)
    (run / RECORD).symlink_to("gone")
    assert beginning(["resume=auto", *WORDS]).standing is None


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "metrics.csv",
        "metrics.json",
        "config.yaml",
    ],
)
def test_a_folder_where_a_file_is_written_is_refused_before_the_training(
    here: Path, name: str
) -> None:
    saved(here / "x", *WORDS, name="other.ckpt")
    (here / "x" / name).unlink(missing_ok=True)
    (here / "x" / name).mkdir()
    with pytest.raises(UserError, match=f"{name} is a folder"):
        beginning(["resume=auto", "run_dir=x", *WORDS])


@pytest.mark.parametrize("status", ["interrupted", "failed", None])
def test_a_run_that_did_not_end_is_resumable(here: Path, status: str | None) -> None:
    saved(here / "x")
    text = "{half" if status is None else json.dumps({"status": status})
    (here / "x" / "metrics.json").write_text(text)
    assert standing(here / "x").status == "resumable"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["trainer.max_epochs=2"], "completed"),
        (["trainer.max_epochs=1"], "completed"),
        (["trainer.max_epochs=3"], "resumable"),
        (["trainer.max_epochs=-1"], "resumable"),
        (["trainer.max_steps=14"], "completed"),
        (["trainer.max_steps=15"], "resumable"),
        (["trainer.max_time={hours: 1}"], "resumable"),
        ([], "completed"),
    ],
)
def test_a_completed_run_goes_on_only_for_longer(here: Path, words: list[str], status: str) -> None:
    finished(here / "x", *WORDS)
    assert standing(here / "x", words).status == status


def test_a_completed_run_without_its_checkpoint_cannot_go_on_for_longer(here: Path) -> None:
    folder = finished(here / "x", *WORDS)
    for file in (folder / "checkpoints").iterdir():
        file.unlink()
    assert standing(folder, WORDS).status == "completed"
    with pytest.raises(UserError, match="no checkpoint from which to train for longer"):
        standing(folder, ("trainer.max_epochs=3",))


def test_a_run_that_stopped_early_is_completed_for_the_same_words(here: Path) -> None:
    words = ["trainer.max_epochs=50", "task=digits"]
    finished(here / "x", *words, epochs=7)
    assert standing(here / "x", words).status == "completed"


def test_a_run_that_goes_on_seems_completed_no_more(here: Path) -> None:
    reopen(finished(here / "x", *WORDS))
    assert standing(here / "x").status == "resumable"
    assert not list((here / "x" / "checkpoints").glob("*.partial"))


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ([], []),
        (["trainer.max_epochs=3"], ["trainer.max_epochs=3"]),
        (["optimizer=sgd"], ["trainer.max_epochs=2", "optimizer=sgd"]),
        (["trust=[os]"], ["trust=[os]"]),
        (["init_from.path=elsewhere.ckpt"], ["init_from.path=elsewhere.ckpt"]),
    ],
)  # fmt: skip
def test_only_words_that_change_something_are_laid_on_the_checkpoint(
    here: Path, words: list[str], left: list[str]
) -> None:
    saved(here / "x", *WORDS)
    start = beginning([*WORDS, *words, "run_dir=x", "resume=auto"])
    place = [f"ckpt_path={Path('x/checkpoints/last.ckpt')}", "run_dir=x"]
    assert [line.replace("'", "") for line in start.overrides] == [*left, *place]
    assert "continues in x after step 14" in start.said


def test_the_same_words_make_the_configuration_of_the_checkpoint(here: Path) -> None:
    """Also those that could not be laid on it twice."""
    words = [*WORDS, "experiment=[]", "+callbacks.mine={_target_: lightning.pytorch.Callback}"]
    words = [word for word in words if word != "experiment=[]"]
    saved(here / "x", *words)
    start = beginning([*words, "resume=auto", "run_dir=x"])
    assert storable(composed(start.overrides).config) | {"ckpt_path": None} == storable(
        compose(words).config
    )


def test_without_a_folder_the_newest_run_of_the_same_words_goes_on(here: Path) -> None:
    runs = here / "runs" / "digits" / "mdeq"
    for number, words in enumerate([WORDS, WORDS, ("task=digits",), WORDS]):
        make = finished if number == 3 else saved
        make(runs / str(number), *words)
        os.utime(runs / str(number) / RECORD, (1000 + number, 1000 + number))
    start = beginning(["resume=auto", *WORDS])
    assert start.standing is not None
    assert start.standing.folder == Path("runs/digits/mdeq/1")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(runs / "1")], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        again = beginning(["resume=auto", *WORDS])
        assert again.standing is not None
        assert again.standing.folder == Path("runs/digits/mdeq/0")
        assert other.stdin is not None
        other.stdin.close()
    assert beginning(["resume=auto", *WORDS, "seed=3"]).standing is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resume=yes"], "resume=yes: resume takes auto or null"),
        (["resume=auto,null"], "resume takes auto or null"),
        (["resume=auto", "ckpt_path=a.ckpt"], "ckpt_path=a.ckpt names one: leave one of the two"),
        (["resume=auto", "hydra.run.dir=x"], "set it in place of hydra.run.dir=x"),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        beginning(words)
    assert "\n" not in str(caught.value)


def test_processes_started_from_outside_need_a_named_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match="needs run_dir=<folder> where torchrun or srun"):
        beginning(["resume=auto", "strategy=ddp_cpu"])
    assert beginning(["resume=auto", "strategy=ddp_cpu", "run_dir=x"]).standing is not None


def test_no_word_of_it_changes_nothing() -> None:
    assert beginning(WORDS).overrides == list(WORDS)
    assert beginning([*WORDS, "resume=null"]).overrides == list(WORDS)
