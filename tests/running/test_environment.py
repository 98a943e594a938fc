"""What a run notes of what it runs on: environment.json."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
from pathlib import Path

import numpy
import pytest

from equipoise.running import environment
from equipoise.running.environment import (
    VARIABLES,
    changes,
    differences,
    fingerprint,
    fingerprints,
    note_start,
    read_starts,
    surroundings,
)

ORIGIN = {"command": "python train.py", "date": "2026-01-01", "revision": "abc"}


def test_each_start_is_added(tmp_path: Path) -> None:
    for step in (0, 5):
        note_start(tmp_path, {"task": {"path": None}}, ORIGIN, {"step": step, "words": ["seed=1"]})
    starts = read_starts(tmp_path)
    assert [start["step"] for start in starts] == [0, 5]
    assert starts[0]["packages"]["numpy"] == numpy.__version__
    assert starts[0]["command"] == "python train.py"
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"starts": 3}', '{"starts": [3]}'])
def test_what_cannot_be_read_counts_as_none(tmp_path: Path, text: str) -> None:
    assert read_starts(tmp_path) == []
    (tmp_path / "environment.json").write_text(text)
    assert read_starts(tmp_path) == []


def test_no_variable_but_those_of_the_list_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "very-secret")
    monkeypatch.setenv("OMP_SCHEDULE", "static")
    noted = surroundings()
    assert noted["variables"]["OMP_SCHEDULE"] == "static"
    assert set(noted["variables"]) <= set(VARIABLES)
    assert not [name for name in VARIABLES if any(w in name for w in ("KEY", "TOKEN", "SECRET"))]
    text = json.dumps(noted)
    assert "very-secret" not in text
    for private in (os.uname().nodename, getpass.getuser(), str(Path.home())):
        assert f'"{private}"' not in text
        assert f"{private}/" not in text.replace("root/", "")


def committed(folder: Path) -> Path:
    """A repository with one file."""
    (folder / "code.py").write_text("one\n \n\n")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=b",
                                                "commit", "-qm", "one"]):  # fmt: skip
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    return folder


def test_the_difference_from_the_commit_can_be_applied(tmp_path: Path) -> None:
    root = committed(tmp_path)
    kept = tmp_path / "changes" / "0_code.diff"
    assert changes(root, kept) == {"changed": False, "untracked": []}
    assert not kept.exists()
    (root / "code.py").write_text("two\n \n\n")
    (root / "new.py").write_text("new")
    told = changes(root, kept)
    assert (told["changed"], told["untracked"]) == (True, ["new.py"])
    assert told["difference"] == "changes/0_code.diff"
    (root / "code.py").write_text("one\n \n\n")
    subprocess.run(["git", "-C", str(root), "apply", str(kept)], check=True)
    assert (root / "code.py").read_text() == "two\n \n\n"


def test_a_large_difference_is_told_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = committed(tmp_path)
    (root / "code.py").write_text("two\n")
    monkeypatch.setattr(environment, "MOST_CHANGED", 10)
    told = changes(root, tmp_path / "changes" / "0_code.diff")
    assert set(told) == {"changed", "untracked", "sha256"}
    assert not (tmp_path / "changes").exists()


def test_data_that_settings_name_have_fingerprints(tmp_path: Path) -> None:
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data" / "inner" / "a.csv").write_text("1,2")
    (tmp_path / "data" / "b.csv").write_text("3")
    config = {"task": {"path": str(tmp_path / "data"), "name": "digits", "hub": "owner/name"},
              "ckpt_path": str(tmp_path / "data" / "b.csv"), "seed": 1}  # fmt: skip
    found = fingerprints(config)
    assert set(found) == {"task.path", "ckpt_path"}
    assert (found["task.path"]["files"], found["task.path"]["bytes"]) == (2, 4)
    assert found["ckpt_path"]["bytes"] == 1
    (tmp_path / "data" / "b.csv").write_text("4")
    assert fingerprints(config)["ckpt_path"] != found["ckpt_path"]
    assert fingerprints(config)["task.path"] == found["task.path"]  # names and sizes alone
    (tmp_path / "data" / "c.csv").write_text("")
    assert fingerprints(config)["task.path"] != found["task.path"]


def test_large_files_and_folders_are_read_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "MOST_HASHED", 8)
    monkeypatch.setattr(environment, "END", 2)
    monkeypatch.setattr(environment, "MOST_FILES", 3)
    file = tmp_path / "large"
    hashes = []
    for content in (b"ab......yz", b"ab.middle!yz"[:8] + b"yz", b"ab......yy"):
        file.write_bytes(content)
        hashes.append(fingerprint(file)["sha256"])
    assert hashes[0] == hashes[1] != hashes[2]
    for number in range(5):
        (tmp_path / str(number)).touch()
    assert fingerprint(tmp_path)["more_files"]
    assert fingerprint(tmp_path)["files"] == 3


def test_differences_are_told_by_dotted_names() -> None:
    then = {"threads": 1, "packages": {"a": "1", "b": "2"}, "gone": 1}
    now = {"threads": 1, "packages": {"a": "1", "b": "3"}, "new": 2}
    assert differences(then, now) == {
        "packages.b": ("2", "3"), "gone": (1, None), "new": (None, 2)
    }  # fmt: skip
