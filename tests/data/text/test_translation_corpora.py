"""Translations in every layout, as one: lines of JSON, two files of lines, tables; and bad ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest

from equipoise.data.text.translation_corpora import ParallelFolder, PublishedTranslations
from equipoise.errors import UserError
from tests.data.text.pair_writing import PAIRS, Pair, write_jsonl, write_lines

pytest.importorskip("tokenizers")
TURNED = [(b, a) for a, b in PAIRS]
SPLITS = {"train": PAIRS * 4, "valid": PAIRS[:2], "test": PAIRS[2:]}
Write = Callable[..., Path]


def folder(path: Path, **settings: Any) -> ParallelFolder:
    return ParallelFolder(**{"path": str(path), "subwords": 280, **settings})


def published(path: Path | str, **settings: Any) -> PublishedTranslations:
    protocol = {"batch_size": 8, "batch_tokens": 256, "max_length": 64, "subwords": 280}
    return PublishedTranslations(**{**protocol, "path": str(path), **settings})


def pairs(data: ParallelFolder | PublishedTranslations) -> dict[str, list[Pair]]:
    return {name: data.sentences(name) for name in ("train", "val", "test")}


def write_parquet(place: Path, nested: bool, **splits: Sequence[Pair]) -> Path:
    """Write tables in a folder whose name, unlike that of a test, names no split."""
    path = place / "tables"
    path.mkdir()
    for name, rows in splits.items():
        sides = [{"de": german, "en": english} for german, english in rows]
        table = [{"translation": row} for row in sides] if nested else sides
        datasets.Dataset.from_list(table).to_parquet(path / f"{name}-00000-of-00001.parquet")
    return path


@pytest.mark.parametrize("write", [write_jsonl, write_lines])
@pytest.mark.parametrize("name", ["val", "valid", "validation"])
@pytest.mark.parametrize("make", [folder, published])
def test_the_layouts_give_the_same_pairs(
    tmp_path: Path, write: Write, name: str, make: Callable[..., Any]
) -> None:
    data = make(write(tmp_path, train=PAIRS * 4, test=PAIRS[2:], **{name: PAIRS[:2]}))
    assert data.languages == ("de", "en")
    assert pairs(data) == {"train": [*PAIRS * 4], "val": [*PAIRS[:2]], "test": [*PAIRS[2:]]}


@pytest.mark.parametrize("nested", [False, True])
def test_tables_give_the_same_pairs(tmp_path: Path, nested: bool) -> None:
    splits = {"train": PAIRS * 4, "validation": PAIRS[:2], "test": PAIRS[2:]}
    path = write_parquet(tmp_path, nested, **splits)
    data = published(path)
    assert pairs(data)["train"] == [*PAIRS * 4]
    assert pairs(data)["val"] == [*PAIRS[:2]]
    assert data.facts("test")["text"] == f"the split 'test' of {path}"
    turned = published(path, source="en", target="de")
    assert pairs(turned)["test"] == TURNED[2:]


def test_names_between_split_and_language_do_not_matter(tmp_path: Path) -> None:
    """As in train.de-en.de of fairseq, and train.tok.de."""
    write_lines(tmp_path, **{"train.de-en": PAIRS, "valid.tok": PAIRS[:1]})
    assert pairs(folder(tmp_path))["val"] == [PAIRS[0]]


@pytest.mark.parametrize("write", [write_jsonl, write_lines])
@pytest.mark.parametrize(
    ("settings", "languages"),
    [
        ({}, ("de", "en")),
        ({"source": "en"}, ("en", "de")),
        ({"target": "de"}, ("en", "de")),
        ({"source": "en", "target": "de"}, ("en", "de")),
    ],
)
def test_one_language_tells_the_other(
    tmp_path: Path, write: Write, settings: dict[str, str], languages: Pair
) -> None:
    data = folder(write(tmp_path, **SPLITS), **settings)
    assert data.languages == languages
    assert data.sentences("test") == (TURNED[2:] if languages[0] == "en" else [*PAIRS[2:]])


def test_the_first_two_keys_are_taken_in_their_order(tmp_path: Path) -> None:
    line = json.dumps({"nl": "een hond", "fr": "un chien", "en": "a dog"})
    (tmp_path / "train.jsonl").write_text(f"{line}\n\n{line}\n")
    data = folder(tmp_path, val_fraction=0)
    assert data.languages == ("nl", "fr")
    assert data.sentences("train") == [("een hond", "un chien")] * 2


def test_lines_may_nest_their_languages(tmp_path: Path) -> None:
    line = json.dumps({"id": "1", "translation": {"de": "ein Hund", "en": "a dog"}})
    (tmp_path / "train.jsonl").write_text(f"{line}\n{line}\n")
    assert pairs(folder(tmp_path))["train"] == [PAIRS[0]]


def test_of_three_files_the_languages_must_be_named(tmp_path: Path) -> None:
    write_lines(tmp_path, **SPLITS)
    (tmp_path / "train.fr").write_text("un chien\n" * 20)
    with pytest.raises(UserError, match=r"in de, en, fr: say which with task.source and task.tar"):
        folder(tmp_path).inspect()
    data = folder(tmp_path, source="en", target="de")
    assert pairs(data)["train"] == TURNED * 4


def test_without_a_test_file_test_is_validation(tmp_path: Path) -> None:
    data = folder(write_jsonl(tmp_path, train=PAIRS * 4, valid=PAIRS[:2]))
    assert pairs(data)["test"] == pairs(data)["val"] == [*PAIRS[:2]]
    assert data.facts("test")["text"] == data.facts("val")["text"]


def test_without_validation_a_part_of_training_is_held_out_by_the_seed(tmp_path: Path) -> None:
    numbered = [(f"Zahl {n}", f"number {n}") for n in range(40)]
    write_jsonl(tmp_path, train=numbered, test=PAIRS)

    def parts(seed: int) -> dict[str, list[Pair]]:
        return pairs(folder(tmp_path, val_fraction=0.1, seed=seed))

    first = parts(1)
    assert len(first["val"]) == 4
    assert sorted(first["train"] + first["val"]) == sorted(numbered)
    assert first["test"] == [*PAIRS]
    assert first == parts(1)
    assert first["val"] != parts(2)["val"]


def test_without_a_fraction_validation_is_test_or_training(tmp_path: Path) -> None:
    write_jsonl(tmp_path, train=PAIRS, test=PAIRS[:2])
    assert pairs(folder(tmp_path, val_fraction=0))["val"] == [*PAIRS[:2]]
    (tmp_path / "test.jsonl").unlink()
    assert pairs(folder(tmp_path, val_fraction=0))["test"] == [*PAIRS]


def test_too_few_pairs_to_hold_some_out_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"too few pairs \(1\) to hold out task.val_fraction=0.05"):
        folder(write_jsonl(tmp_path, train=PAIRS[:1])).inspect()


def test_files_that_change_are_read_anew(tmp_path: Path) -> None:
    before = pairs(folder(write_jsonl(tmp_path, **SPLITS)))
    write_jsonl(tmp_path, test=PAIRS)
    after = pairs(folder(tmp_path))
    assert before["test"] != after["test"] == [*PAIRS]


@pytest.mark.parametrize("write", [write_jsonl, write_lines])
def test_training_pairs_with_an_empty_side_are_counted(tmp_path: Path, write: Write) -> None:
    holes = [("", "a dog"), ("ein Hund", "  "), ("", "")]
    data = folder(write(tmp_path, **{**SPLITS, "train": [*PAIRS, *holes]}))
    with pytest.warns(
        UserWarning, match="pairs are left out: 3 of 8 for train with nothing on a side"
    ):
        data.inspect()
    assert data.sentences("train") == [*PAIRS]
    assert data.facts("train")["left_out"] == {"too_long": 0, "empty": 3}


@pytest.mark.parametrize("name", ["valid", "test"])
def test_an_empty_line_that_would_be_scored_is_named(tmp_path: Path, name: str) -> None:
    write_lines(tmp_path, **{**SPLITS, name: [PAIRS[0], ("der Fuchs", "")]})
    where = re.escape(f"Line 2 of {tmp_path / name}.de and {name}.en is empty in en")
    with pytest.raises(UserError, match=where):
        folder(tmp_path).inspect()


def test_white_space_around_sentences_and_line_ends_within_are_no_text(tmp_path: Path) -> None:
    write_jsonl(tmp_path, train=[(" ein\nHund ", "a\r\ndog\n"), PAIRS[0]], valid=PAIRS[:1])
    assert folder(tmp_path).sentences("train") == [PAIRS[0], PAIRS[0]]


def test_files_of_different_lengths_are_named_with_their_counts(tmp_path: Path) -> None:
    write_lines(tmp_path, **SPLITS)
    (tmp_path / "valid.en").write_text("a dog\n")
    with pytest.raises(UserError, match=r"valid\.de has 2 lines and valid\.en has 1: line by line"):
        folder(tmp_path).inspect()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1, 2]", "is no JSON object such as"),
        ('{"de": "ein', "is no JSON object such as"),
        ('{"de": "ein Hund"}', "has no text under en"),
        ('{"de": "ein Hund", "en": null}', "has no text under en"),
        ('{"de": 5, "en": "five"}', "has no text under de"),
        ('{"de": "ein Hund", "en": "\\ud800"}', "has half a character under en"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, line: str, said: str) -> None:
    write_jsonl(tmp_path, **SPLITS)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(UserError, match=re.escape(f"Line 22 of {tmp_path}/train.jsonl {said}")):
        folder(tmp_path).inspect()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"source": "due"}, r"task.source=due is no language of .*, which has de, en; did you mea"),
        ({"target": "fr"}, r"task.target=fr is no language of .*, which has de, en$"),
    ],
)
@pytest.mark.parametrize("write", [write_jsonl, write_lines])
def test_an_unknown_language_is_refused(
    tmp_path: Path, write: Write, settings: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        folder(write(tmp_path, **SPLITS), **settings).inspect()


def test_a_language_that_another_split_lacks_is_named(tmp_path: Path) -> None:
    write_jsonl(tmp_path, **SPLITS)
    write_jsonl(tmp_path, keys=("de", "fr"), valid=PAIRS)
    with pytest.raises(UserError, match=r"task.target=en is no language of .*valid\.jsonl"):
        folder(tmp_path).inspect()


def test_one_language_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.de").write_text("ein Hund\n")
    (tmp_path / "train.txt").write_text("no language\n")
    with pytest.raises(UserError, match=r"train\.de is in de: add a second language"):
        folder(tmp_path).inspect()


def test_two_files_for_one_side_are_named(tmp_path: Path) -> None:
    write_lines(tmp_path, **{"train": PAIRS, "train.tok": PAIRS})
    with pytest.raises(UserError, match=r"has train\.de and train\.tok\.de for train: keep one"):
        folder(tmp_path).inspect()


@pytest.mark.parametrize(
    ("make", "given", "said"),
    [
        (folder, {"valid": PAIRS}, r"no pairs for train: put train\.jsonl"),
        (published, {"train": PAIRS}, r"no pairs for val: put valid\.jsonl .*valid\.de, valid\.en"),
    ],
)
def test_a_split_that_is_missing_is_named(
    tmp_path: Path, make: Callable[..., Any], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        make(write_jsonl(tmp_path, **given)).inspect()


def test_a_table_without_validation_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, False, train=PAIRS)
    with pytest.raises(UserError, match="has no split for val, only train"):
        published(path).inspect()


def test_a_table_in_other_languages_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, True, train=PAIRS, validation=PAIRS)
    with pytest.raises(UserError, match=r"task.source=fr is no language of the split 'train' of"):
        published(path, source="fr").inspect()


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    write_lines(tmp_path, **SPLITS)
    (tmp_path / "train.de").write_bytes("Männer\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"train\.de is not valid UTF-8 at byte 1"):
        folder(tmp_path).inspect()


def test_files_without_a_whole_pair_are_refused(tmp_path: Path) -> None:
    write_lines(tmp_path, train=[("ein Hund", ""), ("", "a dog")], valid=PAIRS)
    with pytest.raises(UserError, match="has no pair with text on both sides"):
        folder(tmp_path).inspect()


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    write_jsonl(tmp_path, **SPLITS)
    with pytest.raises(UserError, match=r"needs translations of your own: set task.path"):
        ParallelFolder().inspect()
    with pytest.raises(UserError, match=r"is a file: set task.path to a folder with train\.jsonl"):
        folder(tmp_path / "train.jsonl").inspect()
    with pytest.raises(UserError, match=r"does not exist: set task.path"):
        published(tmp_path / "nowhere").inspect()
    with pytest.raises(UserError, match=r"task.val_fraction is 1: set it to a number in \[0, 1\)"):
        folder(tmp_path, val_fraction=1)


def test_without_a_network_the_error_says_what_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("equipoise.data.hub._hub_answers", lambda name: False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(UserError, match=r"datasets/nobody/no-such-pairs elsewhere and set"):
        published("nobody/no-such-pairs").inspect()
