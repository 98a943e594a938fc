"""Text files that cannot be used are each told in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from text_writing import TRAIN, write_texts

from equipoise.data.text_files import published_files, read_utf8
from equipoise.errors import UserError

LAYOUTS = ("wiki.{}.tokens", "{}.txt")


def test_the_first_layout_that_is_there_is_taken(tmp_path: Path) -> None:
    write_texts(tmp_path, "{}.txt")
    assert [file.name for file in published_files(tmp_path, LAYOUTS)] == [
        "train.txt", "valid.txt", "test.txt",
    ]  # fmt: skip
    write_texts(tmp_path)
    assert published_files(tmp_path, LAYOUTS)[1].name == "wiki.valid.tokens"


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    (write_texts(tmp_path) / "wiki.test.tokens").unlink()
    with pytest.raises(UserError, match=r"has no wiki.test.tokens: put the file"):
        published_files(tmp_path, LAYOUTS)


def test_a_folder_without_any_is_told_the_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no wiki.train.tokens or train.txt: set task.path"):
        published_files(tmp_path, LAYOUTS)


@pytest.mark.parametrize("content", [b"", b" \n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"a.txt is empty"):
        read_utf8(tmp_path / "a.txt")


def test_invalid_utf_8_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 ol\xe9")
    with pytest.raises(UserError, match=r"a.txt is not valid UTF-8 at byte 3: convert it"):
        read_utf8(tmp_path / "a.txt")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_utf8(tmp_path)


def test_marks_and_line_ends_of_other_systems_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + TRAIN.replace("\n", "\r\n").encode())
    assert read_utf8(tmp_path / "a.txt") == TRAIN
