"""The Penn Treebank, by words or by characters, from the published files."""

from __future__ import annotations

from functools import lru_cache

from equipoise.data.corpus import Corpus, encode
from equipoise.data.hub_dataset import local_folder
from equipoise.data.text_data_module import TextDataModule
from equipoise.data.text_files import SPLITS, SplitFiles, Stamp, published_files, read_utf8, stamp
from equipoise.data.vocabulary import Characters
from equipoise.data.wikitext import words_of_files
from equipoise.errors import UserError

WORD_LAYOUTS = ("ptb.{}.txt", "{}.txt")
CHARACTER_LAYOUTS = ("ptb.char.{}.txt", "{}.txt")


class PennTreebank(TextDataModule):
    """Sentences of the Wall Street Journal in 10,000 words: a folder with ptb.{...}.txt.

    path: the folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt, or without "ptb.".

    Source: Mikolov's preprocessing of the Penn Treebank (Marcus et al. 1993).
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        batch_size: int = 16,
        eval_batch_size: int | None = 10,
        segment_length: int = 110,
        eval_segment_length: int | None = None,
        memory_length: int = 110,
        eval_memory_length: int | None = None,
        vocabulary: int | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            segment_length=segment_length,
            eval_segment_length=eval_segment_length,
            memory_length=memory_length,
            eval_memory_length=eval_memory_length,
            vocabulary=vocabulary,
        )
        self.path = path

    def read_corpus(self) -> Corpus:
        """Read the three splits; raises UserError when one is missing."""
        files = published_files(local_folder(given(self.path, "ptb", "ptb")), WORD_LAYOUTS)
        return words_of_files(files, stamp(files))


class PennTreebankCharacters(TextDataModule):
    """The same sentences by characters: a folder with ptb.char.{train,valid,test}.txt.

    path: the folder, whose files have a space between the characters and _ for a space. A line
    feed stands for the published <eos>.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        batch_size: int = 32,
        eval_batch_size: int | None = 10,
        segment_length: int = 200,
        eval_segment_length: int | None = None,
        memory_length: int = 200,
        eval_memory_length: int | None = None,
        vocabulary: int | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            segment_length=segment_length,
            eval_segment_length=eval_segment_length,
            memory_length=memory_length,
            eval_memory_length=eval_memory_length,
            vocabulary=vocabulary,
        )
        self.path = path

    def read_corpus(self) -> Corpus:
        """Read the three splits; raises UserError when one is missing."""
        folder = local_folder(given(self.path, "ptb_char", "ptb.char"))
        files = published_files(folder, CHARACTER_LAYOUTS)
        return characters_of_files(files, stamp(files))


@lru_cache(maxsize=1)
def characters_of_files(files: SplitFiles, _stamp: Stamp) -> Corpus:
    """Return the corpus of three files of spaced characters; the latest one is kept."""
    named = dict(zip(SPLITS, files, strict=True))
    texts = {name: joined(read_utf8(file)) for name, file in named.items()}
    vocabulary = Characters.of(texts["train"])
    return Corpus(
        vocabulary, {n: encode(texts[n], vocabulary, str(file)) for n, file in named.items()}
    )


def joined(text: str) -> str:
    """ "a b _ c" -> "ab c", line by line."""
    return text.replace(" ", "").replace("_", " ")


def given(path: str | None, task: str, prefix: str) -> str:
    """Return the path. Raises UserError where none was given."""
    if path is None:
        raise UserError(
            f"task={task} needs the published files, which may not be handed on: set task.path to "
            f"the folder with {prefix}.train.txt, {prefix}.valid.txt and {prefix}.test.txt."
        )
    return path
