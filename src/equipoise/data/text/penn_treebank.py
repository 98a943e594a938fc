"""The Penn Treebank, by words or by characters, from the published files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from equipoise.data.folders import local_folder, required_path
from equipoise.data.module import SPLITS
from equipoise.data.text.files import SplitFiles, Stamp, published_files, read_utf8, stamp
from equipoise.data.text.module import Corpus, TextDataModule, encode
from equipoise.data.text.vocabulary import Characters
from equipoise.data.text.wikitext import words_of_files

WORD_LAYOUTS = ("ptb.{}.txt", "{}.txt")
CHARACTER_LAYOUTS = ("ptb.char.{}.txt", "{}.txt")


@dataclass(kw_only=True, eq=False)
class PennTreebank(TextDataModule):
    """Sentences of the Wall Street Journal in 10,000 words: a folder with ptb.{...}.txt.

    path: the folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt, or without "ptb.".

    Source: Mikolov's preprocessing of the Penn Treebank (Marcus et al. 1993).
    """

    path: str | None = None
    batch_size: int = 16
    eval_batch_size: int | None = 10
    segment_length: int = 110
    memory_length: int = 110

    def read_corpus(self) -> Corpus:
        """Read the three splits; raises UserError if one is missing."""
        files = published_files(_folder(self.path, "ptb", "ptb"), WORD_LAYOUTS)
        return words_of_files(files, stamp(files))


@dataclass(kw_only=True, eq=False)
class PennTreebankCharacters(TextDataModule):
    """The same sentences by characters: a folder with ptb.char.{train,valid,test}.txt.

    path: the folder; its files put a space between characters and _ for a space. A line feed takes
    the place of the published <eos>.
    """

    path: str | None = None
    batch_size: int = 32
    eval_batch_size: int | None = 10
    segment_length: int = 200
    memory_length: int = 200

    def read_corpus(self) -> Corpus:
        """Read the three splits; raises UserError if one is missing."""
        folder = _folder(self.path, "ptb_char", "ptb.char")
        files = published_files(folder, CHARACTER_LAYOUTS)
        return characters_of_files(files, stamp(files))


@lru_cache(maxsize=1)
def characters_of_files(files: SplitFiles, _stamp: Stamp) -> Corpus:
    """The corpus of three files of spaced characters; the latest one is kept."""
    named = dict(zip(SPLITS, files, strict=True))
    texts = {name: joined(read_utf8(file)) for name, file in named.items()}
    vocabulary = Characters.of(texts["train"])
    return Corpus(
        vocabulary, {n: encode(texts[n], vocabulary, str(file)) for n, file in named.items()}
    )


def joined(text: str) -> str:
    """ "a b _ c" -> "ab c", line by line."""
    return text.replace(" ", "").replace("_", " ")


def _folder(path: str | None, task: str, prefix: str) -> Path:
    """The folder of the files. Raises UserError if none is given or it does not exist."""
    refusal = (
        f"task={task} needs the published files, which must not be shared: set task.path to "
        f"the folder with {prefix}.train.txt, {prefix}.valid.txt and {prefix}.test.txt."
    )
    return local_folder(required_path(path, refusal))
