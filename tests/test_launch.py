"""What a run that could not begin leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.launch import remove_unused


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
