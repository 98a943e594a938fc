"""What a run that could not begin leaves behind, and what is shown or found before one begins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from equipoise.checkpoints import read_checkpoint
from equipoise.command_line import train
from equipoise.compose import CONF
from equipoise.errors import UserError
from equipoise.launch import remove_unused, show_config
from equipoise.run import composed, run_directory


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "cifar10" / "mdeq" / "now"
    (folder / ".hydra").mkdir(parents=True)
    return folder


def test_nothing(run: Path, tmp_path: Path) -> None:
    remove_unused(run)
    assert list(tmp_path.iterdir()) == []


def test_what_earlier_runs_have_left(run: Path, tmp_path: Path) -> None:
    earlier = run.parents[1] / "resnet"
    earlier.mkdir()
    remove_unused(run)
    assert list((tmp_path / "runs" / "cifar10").iterdir()) == [earlier]


def test_a_run_that_has_begun(run: Path) -> None:
    (run / "config.yaml").touch()
    remove_unused(run)
    assert (run / "config.yaml").is_file()


def test_a_folder_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = tmp_path / "mine" / "first"
    (named / ".hydra").mkdir(parents=True)
    remove_unused(named)
    assert (tmp_path / "mine").is_dir()
    assert not named.exists()


SMALL = ["model.channels=[8,8]", "model.head_channels=[2,4]", "model.final_channels=16",
         "model.groups=4"]  # fmt: skip


def test_the_configuration_is_shown_where_it_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert show_config(["--cfg", "job", "-p", "solver", "solver.tol=1e-5", *SMALL]) == 0
    assert "tol: 1.0e-05" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("solver.stop=relativ", "did you mean relative"),
        ("trainer.precision=bf17", "trainer.precision=bf17"),
        ("optimizer.lr=-1", "optimizer: Invalid learning rate"),
        ("model.groups=5", "model: "),
        ("ckpt_path=lost.ckpt", "there is no checkpoint"),
    ],
)
def test_the_configuration_is_checked_as_that_of_a_run(typed: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        show_config(["--cfg", "job", *SMALL, typed])


def test_folders_of_ones_own_reach_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra lists the search path among its own overrides, not among the job's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    (tmp_path / "mine" / "task").mkdir(parents=True)
    own = (CONF / "task" / "digits.yaml").read_text().replace("batch_size: 64", "batch_size: 48")
    (tmp_path / "mine" / "task" / "my_digits.yaml").write_text(own)
    short = ["trainer.max_steps=1", "solver.max_steps=2", "trainer.limit_val_batches=1",
             "trainer.limit_test_batches=1", "hydra/job_logging=none"]  # fmt: skip
    found = "hydra.searchpath=[file://mine]"
    assert train([found, "task=my_digits", *SMALL, *short, "run_dir=run"]) == 0
    checkpoint = read_checkpoint("run/checkpoints/last.ckpt")
    assert checkpoint["choices"]["task"] == "my_digits"
    assert checkpoint["config"]["task"]["batch_size"] == 48
    path = "ckpt_path=run/checkpoints/last.ckpt"
    for word in (found, "solver.tol=1e-2"):
        again = composed([path, word, *(["optimizer=sgd"] if word == found else [])])
        assert run_directory(again, "train").parts[:3] == ("runs", "my_digits", "mdeq")
