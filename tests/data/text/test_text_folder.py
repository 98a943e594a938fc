"""A text of one's own: files, splits, units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from equipoise.data.text.text_folder import TextFolder
from equipoise.errors import UserError
from tests.data.text.text_writing import write_texts

TEXT = "the fox and the dog\n" * 50


def folder(path: Path, **settings: Any) -> TextFolder:
    return TextFolder(**{"path": str(path), "batch_size": 2, "segment_length": 8, **settings})


def parts(data: TextFolder) -> dict[str, str]:
    vocabulary, splits = data.corpus.vocabulary, data.corpus.splits
    return {name: vocabulary.decode(split.tokens.tolist()) for name, split in splits.items()}


def test_one_file_is_divided_from_its_end(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(TEXT)
    found = parts(folder(tmp_path / "book.txt"))
    assert found["train"] + found["val"] + found["test"] == TEXT
    assert len(found["val"]) == len(found["test"]) == round(0.05 * len(TEXT))


def test_several_files_are_one_text_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "2.txt").write_text("b" * 500)
    (tmp_path / "1.txt").write_text("a" * 500)
    found = parts(folder(tmp_path))
    assert found["train"] == "a" * 500 + "\n" + "b" * 400
    assert found["test"] == "b" * 50


def test_splits_of_their_own_are_taken_as_they_are(tmp_path: Path) -> None:
    texts = {"train": TEXT, "valid": TEXT[:200], "test": TEXT[:100]}
    found = parts(folder(write_texts(tmp_path, "{}.txt", **texts)))
    assert found == {"train": TEXT, "val": TEXT[:200], "test": TEXT[:100]}


def test_without_a_test_file_test_is_validation(tmp_path: Path) -> None:
    write_texts(tmp_path, "{}.txt", train=TEXT, valid=TEXT[:200])
    (tmp_path / "test.txt").unlink()
    found = parts(folder(tmp_path))
    assert found["test"] == found["val"] == TEXT[:200]


def test_without_a_validation_file_the_end_of_training_is_held_out(tmp_path: Path) -> None:
    write_texts(tmp_path, "{}.txt", train=TEXT, test=TEXT[:100])
    (tmp_path / "valid.txt").unlink()
    found = parts(folder(tmp_path))
    assert found["train"] + found["val"] == TEXT
    assert found["test"] == TEXT[:100]


def test_words_can_be_limited(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(TEXT)
    data = folder(tmp_path, unit="word", word_limit=1)
    assert data.inspect() == {"vocabulary": 3}
    assert parts(data)["train"].startswith("the <unk> <unk> the <unk>\n")


def test_subwords_are_learnt(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "book.txt").write_text(TEXT * 4)
    data = folder(tmp_path, unit="subword", subwords=270)
    assert data.inspect()["vocabulary"] <= 270
    assert sum(map(len, parts(data).values())) == len(TEXT * 4)
    assert data.facts("test")["tokens_per_character"] < 1


@pytest.mark.parametrize(
    ("path", "said"),
    [(None, "needs text of your own"), ("nowhere", "There is no file or folder nowhere")],
)
def test_without_text_the_error_says_what_to_set(path: str | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        TextFolder(path=path).inspect()


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no \*.txt files"):
        folder(tmp_path).inspect()


def test_what_systems_leave_behind_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "1.TXT").write_text("a" * 500)
    for name in ("._1.TXT", ".notes.txt"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "folder.txt").mkdir()
    assert parts(folder(tmp_path))["train"] == "a" * 450


def test_held_out_files_without_a_training_file_are_not_trained_on(tmp_path: Path) -> None:
    write_texts(tmp_path, "{}.txt", train=TEXT, valid=TEXT, test=TEXT)
    (tmp_path / "train.txt").unlink()
    with pytest.raises(UserError, match=r"has valid\.txt but no train\.txt: add it, or rename"):
        folder(tmp_path).inspect()


def test_one_empty_file_among_several_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text(TEXT)
    (tmp_path / "2.txt").touch()
    with pytest.raises(UserError, match=r"2\.txt is empty"):
        folder(tmp_path).inspect()


def test_nothing_left_to_train_on_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ab")
    with pytest.raises(UserError, match=r"too short to hold out task\.val_fraction=0\.5"):
        folder(tmp_path / "a.txt", val_fraction=0.5, test_fraction=0.49).inspect()


@pytest.mark.parametrize("path", ["~nobody_of_this_name/text", "a\0b"])
def test_paths_that_cannot_be(path: str) -> None:
    with pytest.raises(UserError, match=r"set task\.path"):
        TextFolder(path=path).inspect()
