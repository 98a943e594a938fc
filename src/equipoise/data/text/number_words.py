"""Numbers in words, from one language into another; generated, no download."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from equipoise.data.module import SplitName, refuse_below
from equipoise.data.sampling import stream_seed
from equipoise.data.text.parallel import ParallelDataModule
from equipoise.data.text.sentence_pairs import Languages, ParallelCorpus, SentencePairs
from equipoise.data.text.vocabulary import package
from equipoise.errors import UserError, nearest

WITHOUT_NUM2WORDS = (
    "task=number_words needs the package num2words: pip install 'equipoise[translation]'."
)

Sizes = tuple[int, int, int]


@dataclass(kw_only=True, eq=False)
class NumberWords(ParallelDataModule):
    """Different numbers from 0 to `largest`, drawn by the seed, none of them in two splits.

    About half are drawn uniformly in their logarithm: if all were equally likely, few would be
    small.
    source, target: languages of the package `num2words`, which writes the numbers.
    """

    batch_size: int = 128
    batch_tokens: int = 4096
    max_length: int = 128
    subwords: int = 384
    source: str = "en"
    target: str = "de"
    train_size: int = 20000
    val_size: int = 500
    test_size: int = 1000
    largest: int = 999999

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        refuse_below(self, 1, "train_size", "val_size", "test_size", "largest")
        asked = self.train_size + self.val_size + self.test_size
        if asked > self.largest + 1:
            raise UserError(
                f"task.train_size, val_size and test_size ask for {asked:,} different numbers, but "
                f"up to task.largest={self.largest} there are {self.largest + 1:,}: lower them, or "
                "raise task.largest."
            )

    def read_corpus(self) -> ParallelCorpus:
        """Draw and write all splits; raises UserError if a language is unknown."""
        sizes = (self.train_size, self.val_size, self.test_size)
        return written_numbers((self.source, self.target), sizes, self.largest, self.seed)


@lru_cache(maxsize=1)
def written_numbers(languages: Languages, sizes: Sizes, largest: int, seed: int) -> ParallelCorpus:
    """Numbers in both languages, a pure function of the arguments; the latest ones are kept."""
    for key, language in zip(("source", "target"), languages, strict=True):
        _check_language(key, language)
    _, val, test = sizes
    drawn = _drawn(sum(sizes), largest, random.Random(stream_seed(seed)))
    held_out = drawn[: val + test]
    numbers: dict[SplitName, list[int]] = {
        "train": drawn[val + test :], "val": held_out[:val], "test": held_out[val:],
    }  # fmt: skip
    splits: dict[SplitName, SentencePairs] = {}
    for name, some in numbers.items():
        source, target = (_in_words(some, language) for language in languages)
        splits[name] = SentencePairs(source, target, f"number_words ({name})")
    return ParallelCorpus(languages, splits)


def _drawn(count: int, largest: int, generator: random.Random) -> list[int]:
    """Different numbers in any order: some drawn uniformly in their logarithm, others uniformly."""
    by_logarithm = [int((largest + 2) ** generator.random()) - 1 for _ in range(count)]
    equally_likely = generator.sample(range(largest + 1), count)
    drawn = list(dict.fromkeys([*by_logarithm, *equally_likely]))[:count]
    generator.shuffle(drawn)
    return drawn


def _check_language(key: str, language: str) -> None:
    known = package("num2words", WITHOUT_NUM2WORDS).CONVERTER_CLASSES
    if language not in known:
        raise UserError(
            f"task.{key}={language} is not a language that num2words writes in, such as en, "
            f"de, fr{nearest(language, known)}"
        )


def _in_words(numbers: list[int], language: str) -> list[str]:
    write = package("num2words", WITHOUT_NUM2WORDS).num2words
    try:
        return [str(write(number, lang=language)).strip() for number in numbers]
    except (NotImplementedError, OverflowError) as error:
        raise UserError(
            f"num2words cannot write numbers up to {max(numbers)} in {language} ({error}): lower "
            "task.largest."
        ) from error
