"""Compositions by Hydra: the last ones are kept for as long as `conf/` stays as it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from equipoise.config import hydra
from equipoise.config.hydra import composed_by_hydra


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `conf/` that is read in its place."""
    shutil.copytree(hydra.CONF, tmp_path / "conf")
    monkeypatch.setattr(hydra, "CONF", tmp_path / "conf")
    return tmp_path / "conf"


def test_a_composition_that_is_changed_does_not_change_the_next_one() -> None:
    first, choices = composed_by_hydra(["solver=broyden"])
    steps = first.solver.max_steps
    first.solver.max_steps = steps + 1
    choices["solver"] = "none"
    again, chosen = composed_by_hydra(["solver=broyden"])
    assert again.solver.max_steps == steps
    assert chosen["solver"] == "broyden"


def test_a_file_that_is_changed_or_added_is_read(conf: Path) -> None:
    file = conf / "solver" / "broyden.yaml"
    before = composed_by_hydra(["solver=broyden"])[0].solver.memory
    file.write_text(file.read_text().replace(f"memory: {before}", f"memory: {before + 1}"))
    assert composed_by_hydra(["solver=broyden"])[0].solver.memory == before + 1
    (conf / "solver" / "another.yaml").write_text("defaults: [broyden]\nmax_steps: 3\n")
    assert composed_by_hydra(["solver=another"])[0].solver.max_steps == 3


def test_a_file_that_is_changed_is_read_whatever_its_size_and_time(conf: Path) -> None:
    file = conf / "solver" / "broyden.yaml"
    before, text, stat = composed_by_hydra(["solver=broyden"])[0], file.read_text(), file.stat()
    (conf / "solver" / ".#broyden.yaml").symlink_to("user@host.1")  # an editor's lock
    file.write_text(text.replace(f"memory: {before.solver.memory}", "memory: 9"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size
    assert composed_by_hydra(["solver=broyden"])[0].solver.memory == 9 != before.solver.memory


def test_a_file_in_a_folder_that_is_linked_into_conf_is_read(conf: Path) -> None:
    (conf / "solver").rename(conf.parent / "elsewhere")
    (conf / "solver").symlink_to(conf.parent / "elsewhere")
    for steps in (3, 4):
        text = f"defaults: [broyden]\nmax_steps: {steps}\n"
        (conf.parent / "elsewhere" / "mine.yaml").write_text(text)
        assert composed_by_hydra(["solver=mine"])[0].solver.max_steps == steps


def test_a_file_of_a_folder_of_ones_own_is_read_each_time(tmp_path: Path) -> None:
    (tmp_path / "solver").mkdir()
    words = [f"hydra.searchpath=[file://{tmp_path}]", "solver=mine"]
    for steps in (3, 4):
        text = f"defaults: [broyden]\nmax_steps: {steps}\n"
        (tmp_path / "solver" / "mine.yaml").write_text(text)
        assert composed_by_hydra(words)[0].solver.max_steps == steps


def test_no_more_than_a_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict = {}
    monkeypatch.setattr(hydra, "_KEPT", kept)
    monkeypatch.setattr(hydra, "MOST_KEPT", 2)
    for number in range(3):
        composed_by_hydra([f"hydra.job.name=name_{number}"])
    assert [words for words, _ in kept] == [(f"hydra.job.name=name_{n}",) for n in (1, 2)]
