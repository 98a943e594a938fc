"""Which code a result is of: of a clone its commit, of a package its version, of a project both."""

from __future__ import annotations

import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch

from equipoise import __version__
from equipoise.running import origin as module
from equipoise.running.origin import CHANGED, command_line, device_name, origin


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a commit, and the working directory somewhere in it."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "mine.py").write_text("")
    git(tmp_path, "add", "mine.py")
    git(tmp_path, "commit", "--quiet", "-m", "Begin")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    return tmp_path


def test_a_project_has_its_commit_and_a_mark_where_files_differ(project: Path) -> None:
    commit = git(project, "rev-parse", "HEAD")
    assert origin("train", [])["project_revision"] == commit
    (project / "new.txt").write_text("")
    assert origin("train", [])["project_revision"] == commit
    (project / "mine.py").write_text("changed")
    assert origin("train", [])["project_revision"] == f"{commit}{CHANGED}"


def test_a_package_within_a_project_has_its_version(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "__file__", str(project / "env" / "origin.py"))
    (project / "env").mkdir()
    (project / "env" / "origin.py").write_text("")
    found = origin("train", [])
    assert found["revision"] == __version__
    assert found["project_revision"] == git(project, "rev-parse", "HEAD")


def test_a_clone_has_its_commit_and_is_no_project_of_its_own(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "__file__", str(project / "mine.py"))
    found = origin("train", [])
    assert found["revision"] == git(project, "rev-parse", "HEAD")
    assert found["project_revision"] is None


@pytest.mark.parametrize("path", ["", "elsewhere"])
def test_without_git_or_a_commit_there_is_no_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet")
    if path:
        monkeypatch.setenv("PATH", path)
    assert origin("train", [])["project_revision"] is None


def test_the_date_has_a_time_zone_and_is_now() -> None:
    date = datetime.fromisoformat(str(origin("train", [])["date"]))
    assert date.tzinfo is not None
    assert abs((datetime.now().astimezone() - date).total_seconds()) < 60


@pytest.mark.parametrize(
    ("program", "command", "typed"),
    [
        ("train.py", "train", "python train.py"),
        ("/usr/bin/equipoise-evaluate", "evaluate", "equipoise-evaluate"),
        ("/a/equipoise/__main__.py", "train", "python -m equipoise train"),
        ("train.py", "evaluate", "python -m equipoise evaluate"),
        ("own_script.py", "train", "python -m equipoise train"),
    ],
)
def test_the_command_is_what_was_typed(
    program: str, command: str, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "other"])
    words = ["task=digits", "model.channels=[16, 32]", "task.path='my data'"]
    line = command_line(command, words)
    assert line.startswith(f"{typed} task=digits ")
    assert shlex.split(line) == [*shlex.split(typed), *words]


def test_the_processor_has_a_name() -> None:
    name = device_name(torch.device("cpu"))
    assert name.endswith(" (CPU)")
    assert len(name) > len(" (CPU)")
    assert device_name(torch.device("cpu"), 2) == f"2 x {name}"
