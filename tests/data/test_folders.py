"""What counts as the content of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.data.folders import files_in, folders_in, is_content, within
from equipoise.errors import UserError

JUNK = [
    ".ipynb_checkpoints", ".DS_Store", "._a.jpg", ".git", "__MACOSX", "__pycache__", "@eaDir",
    "lost+found", "$RECYCLE.BIN", "System Volume Information",
]  # fmt: skip


@pytest.mark.parametrize("name", JUNK)
def test_what_systems_leave_behind_is_no_content(tmp_path: Path, name: str) -> None:
    assert not is_content(name)
    (tmp_path / "folders" / name).mkdir(parents=True)
    (tmp_path / f"{name}.jpg" if name[0] == "." else tmp_path / f"._{name}.jpg").touch()
    assert folders_in(tmp_path) == ["folders"]
    assert folders_in(tmp_path / "folders") == []
    assert files_in(tmp_path, (".jpg",)) == []


def test_endings_count_in_any_case_and_folders_are_no_files(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.jpg", "c.Jpg", "a.jpeg", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert files_in(tmp_path, (".jpg",)) == ["a.jpg", "b.JPG", "c.Jpg"]
    assert folders_in(tmp_path) == ["folder.jpg"]


def test_links_are_followed_and_one_to_nothing_is_kept_to_be_named(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    assert folders_in(tmp_path) == ["link", "real"]
    assert files_in(tmp_path / "link", (".jpg",)) == ["a.jpg"]
    assert files_in(tmp_path, (".jpg",)) == ["broken.jpg", "circle.jpg"]
    assert within(tmp_path / "circle.jpg", tmp_path) == tmp_path / "circle.jpg"


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone cannot be read \(No such file"):
        folders_in(tmp_path / "gone")
