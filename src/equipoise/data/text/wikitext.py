"""WikiText-103 and WikiText-2 by words, from the hub or the published files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import datasets

from equipoise.data.folders import holds_parquet, is_local, local_folder
from equipoise.data.hub import load_configuration, open_splits
from equipoise.data.module import SPLITS, SplitName
from equipoise.data.text.files import (
    SplitFiles,
    Stamp,
    published_files,
    read_utf8,
    stamp,
    with_line_feeds,
)
from equipoise.data.text.module import Corpus, TextDataModule, encode
from equipoise.data.text.vocabulary import Words
from equipoise.errors import UserError

LAYOUTS = ("wiki.{}.tokens", "{}.txt")
HUB_SPLITS: dict[SplitName, str] = {"train": "train", "val": "validation", "test": "test"}


@dataclass(kw_only=True, eq=False)
class WikiText(TextDataModule):
    """Articles of Wikipedia, tokenised as published: each word and each line end is a token.

    path: a dataset of the hub, a folder with wiki.{train,valid,test}.tokens, or a folder of its
    parquet files. configuration: which one to take from the hub, "wikitext-103-v1" or
    "wikitext-2-v1". Words that are not in the training text become <unk>.

    Source: Merity et al. 2016 (arXiv 1609.07843).
    """

    configuration: str
    path: str = "Salesforce/wikitext"
    batch_size: int = 56
    eval_batch_size: int | None = 16
    segment_length: int = 150
    memory_length: int = 150
    eval_memory_length: int | None = 300

    def read_corpus(self) -> Corpus:
        """Read the three splits; raises UserError if one is not available."""
        if not is_local(self.path):
            return hub_corpus(self.path, self.configuration)
        folder = local_folder(self.path)
        if holds_parquet(folder):
            return hub_corpus(self.path, None)
        files = published_files(folder, LAYOUTS)
        return words_of_files(files, stamp(files))


@lru_cache(maxsize=1)
def words_of_files(files: SplitFiles, _stamp: Stamp) -> Corpus:
    """The corpus of three files of words; the latest one is kept."""
    return _corpus({name: read_utf8(file) for name, file in zip(SPLITS, files, strict=True)}, files)


@lru_cache(maxsize=1)
def hub_corpus(path: str, configuration: str | None) -> Corpus:
    """The corpus of a dataset with one line of text per row; the latest one is kept."""
    tables = load_configuration(path, configuration) if configuration else open_splits(path)
    texts = {name: _text(tables, HUB_SPLITS[name], path) for name in SPLITS}
    places = tuple(Path(path) / HUB_SPLITS[name] for name in SPLITS)
    return _corpus(texts, places)


def _corpus(texts: dict[SplitName, str], places: tuple[Path, ...]) -> Corpus:
    vocabulary = Words.of(texts["train"])
    sources = zip(SPLITS, places, strict=True)
    return Corpus(vocabulary, {n: encode(texts[n], vocabulary, str(at)) for n, at in sources})


def _text(tables: Mapping[str, datasets.Dataset], split: str, path: str) -> str:
    if split not in tables or "text" not in tables[split].column_names:
        raise UserError(
            f"{path} has no split '{split}' with a column text: set task.path to a dataset in the "
            "layout of Salesforce/wikitext."
        )
    rows = tables[split]["text"]
    if not all(isinstance(row, str) for row in rows):
        raise UserError(f"The split '{split}' of {path} has rows without text: fetch it again.")
    text = "".join(row.rstrip("\r\n") + "\n" for row in rows)
    if not text.strip():
        raise UserError(f"The split '{split}' of {path} is empty: fetch it again.")
    return with_line_feeds(text)
