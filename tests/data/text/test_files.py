"""Text files that cannot be used are each told in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equipoise.data.text.files import published_files, read_utf8, stamp
from equipoise.data.text.vocabulary import Characters, Words, lines
from equipoise.errors import UserError
from tests.data.text.text_writing import TRAIN, write_texts

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


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("mark", [True, False])
def test_other_encodings_are_named(tmp_path: Path, encoding: str, mark: bool) -> None:
    text = ("\ufeff" if mark else "") + TRAIN
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    name = encoding[:6].upper() if mark or encoding in ("utf-16", "utf-32") else "zero bytes"
    with pytest.raises(UserError, match=rf"a.txt .*{name}.*convert"):
        read_utf8(tmp_path / "a.txt")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_ends_where_a_file_that_is_iterated_ends_it(tmp_path: Path, end: str) -> None:
    odd = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g"
    file = tmp_path / "a.txt"
    file.write_bytes(f"{odd}{end}{end}h{end}".encode())
    with file.open(encoding="utf-8") as opened:
        expected = [line.removesuffix("\n") for line in opened]
    assert list(lines(read_utf8(file))) == expected == [odd, "", "h"]


@pytest.mark.parametrize("unit", [Words, Characters])
@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_no_token_is_lost_by_the_ends_of_lines(
    tmp_path: Path, unit: type[Words | Characters], end: str
) -> None:
    text = "the quick fox and the dog\n" * 60
    file = tmp_path / "a.txt"
    file.write_bytes(text.replace("\n", end).encode())
    vocabulary = unit.of(read_utf8(file))
    assert len(vocabulary) == len(unit.of(text))
    assert torch.equal(vocabulary.encode(read_utf8(file)).tokens, unit.of(text).encode(text).tokens)


def test_names_of_splits_in_any_case_but_only_one(tmp_path: Path) -> None:
    for name in ("TRAIN.txt", "Val.TXT", "test.Txt", "._train.txt"):
        (tmp_path / name).write_text(TRAIN)
    found = [file.name for file in published_files(tmp_path, LAYOUTS)]
    assert found == ["TRAIN.txt", "Val.TXT", "test.Txt"]
    (tmp_path / "valid.txt").write_text(TRAIN)
    with pytest.raises(UserError, match=r"has Val\.TXT and valid\.txt for val: keep one"):
        published_files(tmp_path, LAYOUTS)


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "nowhere")
    for look in (read_utf8, lambda file: stamp([file])):
        with pytest.raises(UserError, match=r"a.txt cannot be read \(No such file"):
            look(tmp_path / "a.txt")


def test_marks_and_line_ends_of_other_systems_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + TRAIN.replace("\n", "\r\n").encode())
    assert read_utf8(tmp_path / "a.txt") == TRAIN
