"""WikiText in the published files and in parquet files."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from equipoise.data.text.vocabulary import Words
from equipoise.data.text.wikitext import WikiText
from equipoise.errors import UserError
from tests.data.text.text_writing import TEST, TRAIN, VALID, write_texts


def wikitext(folder: Path) -> WikiText:
    return WikiText(configuration="wikitext-2-v1", path=str(folder), batch_size=2, segment_length=4)


def test_published_files_are_read_with_the_words_of_training(tmp_path: Path) -> None:
    data = wikitext(write_texts(tmp_path))
    assert data.inspect() == {"vocabulary": len(Words.of(TRAIN))}
    text = data.corpus.splits["test"]
    assert data.corpus.vocabulary.decode(text.tokens.tolist()) == "a dog and a <unk>\nthe fox\n"
    assert text.unknown == 1
    assert text.out_of_vocabulary_rate == pytest.approx(1 / 9)


def test_a_text_that_changes_is_read_anew(tmp_path: Path) -> None:
    before = wikitext(write_texts(tmp_path)).inspect()
    write_texts(tmp_path, train=TRAIN + " a new word \n")
    assert wikitext(tmp_path).inspect()["vocabulary"] == before["vocabulary"] + 2


def test_parquet_files_give_the_same_tokens(tmp_path: Path) -> None:
    files = wikitext(write_texts(tmp_path / "tokens"))
    for name, text in (("train", TRAIN), ("validation", VALID), ("test", TEST)):
        rows = [line if line.strip() else "" for line in text.splitlines(keepends=True)]
        folder = tmp_path / "parquet"
        folder.mkdir(exist_ok=True)
        datasets.Dataset.from_dict({"text": rows}).to_parquet(folder / f"{name}-0.parquet")
    tables = wikitext(tmp_path / "parquet")
    for name in ("train", "val", "test"):
        one, other = files.corpus.splits[name], tables.corpus.splits[name]
        assert one.tokens.tolist() == other.tokens.tolist()


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no wiki.train.tokens or train.txt"):
        wikitext(tmp_path).inspect()


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist: set task.path"):
        wikitext(tmp_path / "nowhere").inspect()


def test_a_table_without_text_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    datasets.Dataset.from_dict({"words": ["a"]}).to_parquet(folder / "train-0.parquet")
    with pytest.raises(UserError, match="no split 'train' with a column text"):
        wikitext(folder).inspect()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
def test_rows_may_end_in_any_way(tmp_path: Path, end: str) -> None:
    (tmp_path / "text").mkdir()
    for name in ("train", "validation", "test"):
        rows = [f"the fox{end}", end, f"a dog and a fox{end}"]
        table = datasets.Dataset.from_dict({"text": rows})
        table.to_parquet(tmp_path / "text" / f"{name}-0.parquet")
    corpus = wikitext(tmp_path / "text").corpus
    decoded = corpus.vocabulary.decode(corpus.splits["train"].tokens.tolist())
    assert decoded == "the fox\n\na dog and a fox\n"


def test_rows_without_a_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    table = datasets.Dataset.from_dict({"text": ["a fox", None]})
    table.to_parquet(tmp_path / "text" / "train-0.parquet")
    with pytest.raises(UserError, match=r"split 'train' .* has rows without text"):
        wikitext(tmp_path / "text").inspect()


def test_without_a_network_the_error_says_what_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("equipoise.data.hub._hub_answers", lambda name: False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    data = WikiText(configuration="wikitext-2-v1", path="nobody/no-such-text")
    with pytest.raises(
        UserError, match=r"datasets/nobody/no-such-text elsewhere and set task.path"
    ):
        data.inspect()
