"""Any text in UTF-8, by words, characters or subwords."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from equipoise.data.folders import expanded, files_in, required_path
from equipoise.data.module import SPLITS, SplitName, refuse_below
from equipoise.data.text.files import (
    Stamp,
    check_held_out,
    consecutive_parts,
    read_utf8,
    split_file,
    stamp,
)
from equipoise.data.text.module import Corpus, TextDataModule, encode
from equipoise.data.text.vocabulary import Characters, Subwords, Vocabulary, Words
from equipoise.errors import UserError

Unit = Literal["word", "character", "subword"]
LAYOUT = "{}.txt"
WITHOUT_PATH = (
    "task=text_folder needs text of your own: set task.path to a file in UTF-8, or to a "
    "folder with train.txt, valid.txt and test.txt."
)


@dataclass(kw_only=True, eq=False)
class TextFolder(TextDataModule):
    """A file, or a folder with train.txt, valid.txt and test.txt, or with any *.txt files.

    Without train.txt the files, in the order of their names, are one text, whose last parts are
    `val_fraction` and `test_fraction` of the characters. Without test.txt, test is validation;
    without valid.txt, the end of the training text is held out. unit: what a token is. word_limit:
    how many of the most frequent words are kept (None: all). subwords: how many parts byte-pair
    encoding learns.
    """

    path: str | None = None
    unit: Unit = "character"
    word_limit: int | None = None
    subwords: int = 4096
    batch_size: int = 16
    segment_length: int = 64
    memory_length: int = 64
    val_fraction: float = 0.05
    test_fraction: float = 0.05

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        refuse_below(self, 1, "word_limit")
        check_held_out(self.val_fraction, self.test_fraction)

    def read_corpus(self) -> Corpus:
        """Read and divide the text; raises UserError if there is none."""
        place = existing(self.path)
        files = text_files(place)
        return folder_corpus(
            place,
            stamp(files),
            self.unit,
            self.subwords if self.unit == "subword" else self.word_limit,
            (self.val_fraction, self.test_fraction),
        )


@lru_cache(maxsize=1)
def folder_corpus(
    place: Path, _stamp: Stamp, unit: Unit, limit: int | None, held_out: tuple[float, float]
) -> Corpus:
    """The corpus of a file or folder; the latest one is kept."""
    parts = read_parts(place, *held_out)
    if not parts["train"]:
        raise UserError(
            f"The text {place} is too short to hold out task.val_fraction={held_out[0]} and "
            f"task.test_fraction={held_out[1]} of it: lower them, or give more text."
        )
    vocabulary = learn_vocabulary(parts["train"], unit, limit)
    return Corpus(vocabulary, {n: encode(parts[n], vocabulary, f"{place} ({n})") for n in SPLITS})


def learn_vocabulary(text: str, unit: Unit, limit: int | None) -> Vocabulary:
    """The vocabulary of a training text; `limit` is its size, for words at most that."""
    if unit == "subword":
        assert limit is not None
        return Subwords.of(text, limit)
    return Words.of(text, limit) if unit == "word" else Characters.of(text)


def read_parts(place: Path, val_fraction: float, test_fraction: float) -> dict[SplitName, str]:
    """The text of each split."""
    named = named_splits(place)
    if named["train"] is None:
        whole = "\n".join(read_utf8(file) for file in text_files(place))
        return consecutive_parts(whole, val_fraction, test_fraction)
    texts = {name: read_utf8(file) for name, file in named.items() if file is not None}
    if "val" not in texts:
        divided = consecutive_parts(texts["train"], val_fraction, 0.0)
        texts = {"test": divided["val"], **texts, "train": divided["train"], "val": divided["val"]}
    return {"train": texts["train"], "val": texts["val"], "test": texts.get("test", texts["val"])}


def named_splits(place: Path) -> dict[SplitName, Path | None]:
    """The file of each split of a folder; empty if `place` is a file.

    Raises UserError if validation or test have a file and training has none: their texts would be
    trained on.
    """
    if place.is_file():
        return dict.fromkeys(SPLITS)
    named = {name: split_file(place, LAYOUT, name) for name in SPLITS}
    alone = named["val"] or named["test"]
    if alone is not None and named["train"] is None:
        raise UserError(
            f"The folder {place} has {alone.name} but no train.txt: add it, or rename {alone.name} "
            "if all files are one text."
        )
    return named


def text_files(place: Path) -> Sequence[Path]:
    """The file, or the *.txt files of the folder in the order of their names."""
    if place.is_file():
        return [place]
    files = [place / name for name in files_in(place, (".txt",))]
    if not files:
        raise UserError(f"The folder {place} has no *.txt files: put your text there.")
    return files


def existing(path: str | None) -> Path:
    """The file or folder. Raises UserError if none is given or it does not exist."""
    place = expanded(required_path(path, WITHOUT_PATH))
    if not place.exists():
        raise UserError(f"There is no file or folder {path}: set task.path to your text.")
    return place
