"""What the data modules of translation share: one vocabulary, and batches of similar length."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from equipoise.data.loading import BatchLoader
from equipoise.data.module import (
    SPLITS,
    SplitDataModule,
    SplitName,
    on_gpu,
    refuse_below,
    shard_of,
)
from equipoise.data.sampling import LengthBuckets
from equipoise.data.text.module import refuse_other_size
from equipoise.data.text.sentence_pairs import (
    Languages,
    ParallelCorpus,
    SentencePairs,
    TokenPairs,
    TokenSentences,
)
from equipoise.data.text.vocabulary import Subwords, package
from equipoise.errors import UserError

WITHOUT_TOKENIZERS = (
    "Translation needs the package tokenizers: pip install 'equipoise[translation]'."
)


@dataclass(frozen=True, eq=False)
class EncodedPairs:
    """The pairs of a split that are short enough, as text and as tokens.

    too_long: how many others there were.
    """

    text: SentencePairs
    tokens: TokenPairs
    too_long: int


@dataclass(frozen=True, eq=False)
class EncodedCorpus:
    """The splits in tokens of one vocabulary for both languages."""

    vocabulary: Subwords
    splits: Mapping[SplitName, EncodedPairs]


@lru_cache(maxsize=1)
def encoded(corpus: ParallelCorpus, subwords: int, max_length: int) -> EncodedCorpus:
    """Learn the vocabulary from the training pairs and encode all; the latest corpus is kept.

    Raises UserError if no pair of a split is short enough, or the package `tokenizers` is missing.
    """
    package(refusal=WITHOUT_TOKENIZERS)
    train = corpus.splits["train"]
    vocabulary = Subwords.of("\n".join([*train.source, *train.target]), subwords)
    splits = {name: _encode(name, corpus.splits[name], vocabulary, max_length) for name in SPLITS}
    return EncodedCorpus(vocabulary, splits)


def _encode(
    name: SplitName, pairs: SentencePairs, vocabulary: Subwords, max_length: int
) -> EncodedPairs:
    sides = [vocabulary.encode_sentences(side) for side in (pairs.source, pairs.target)]
    longer = [max(map(len, pair)) for pair in zip(*sides, strict=True)]
    kept = [row for row, length in enumerate(longer) if length <= max_length]
    if not kept:
        raise UserError(
            f"Each of the {len(pairs):,} {name} pairs in {pairs.place} has more tokens on a side "
            f"than task.max_length={max_length}: raise it to {min(longer)} or more."
        )
    source, target = (TokenSentences([side[row] for row in kept]) for side in sides)
    text = pairs.at(kept, empty=pairs.empty)
    return EncodedPairs(text, TokenPairs(source, target, vocabulary.first), len(pairs) - len(kept))


def _warn_of_left_out(splits: Mapping[SplitName, EncodedPairs], max_length: int) -> None:
    longer = {name: pairs.too_long for name, pairs in splits.items()}
    empty = {name: pairs.text.empty for name, pairs in splits.items()}
    stored = {name: len(pairs.text) + longer[name] + empty[name] for name, pairs in splits.items()}
    reasons = [
        ", ".join(f"{n:,} of {stored[name]:,} for {name}" for name, n in counts.items() if n) + why
        for counts, why in (
            (longer, f" with more tokens on a side than task.max_length={max_length}"),
            (empty, " with nothing on a side"),
        )
        if any(counts.values())
    ]
    if reasons:
        warnings.warn(f"pairs are left out: {'; '.join(reasons)}", stacklevel=2)


@dataclass(kw_only=True, eq=False)
class ParallelDataModule(SplitDataModule, ABC):
    """Pairs of sentences of similar length in batches (`TokenPairs`), in one vocabulary.

    A batch has at most `batch_size` pairs, in evaluation `eval_batch_size` (None: as many), and at
    most `batch_tokens` tokens: the number of pairs times the length of the longest sentence, on
    whichever side. Pairs with more than `max_length` tokens on a side, `<eos>` included, are left
    out of every split, counted and reported. `subwords` is how many parts byte-pair encoding learns
    from the training sentences of both languages; `vocabulary` is the size it must end up with,
    None for any. `source` and `target` are the languages, None for the first and second that the
    data name.
    """

    batch_tokens: int
    max_length: int
    subwords: int
    vocabulary: int | None = None
    source: str | None = None
    target: str | None = None
    num_workers: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        refuse_below(self, 2, "max_length")
        if self.batch_tokens < self.max_length:
            raise UserError(
                f"task.batch_tokens={self.batch_tokens} has no room for a sentence of "
                f"task.max_length={self.max_length}: raise the first or lower the second."
            )
        if self.source is not None and self.source == self.target:
            raise UserError(
                f"task.source and task.target are both {self.source}: choose two languages."
            )
        self._corpus: ParallelCorpus | None = None

    @abstractmethod
    def read_corpus(self) -> ParallelCorpus:
        """Read all splits; raises UserError if they are not available."""

    @property
    def corpus(self) -> ParallelCorpus:
        """The sentences, read when they are first needed."""
        if self._corpus is None:
            self._corpus = self.read_corpus()
        return self._corpus

    @property
    def languages(self) -> Languages:
        """The language to translate from, and the one to translate into."""
        return self.corpus.languages

    def inspect(self) -> dict[str, Any]:
        """Read the sentences and return the size of their vocabulary.

        Raises UserError if that differs from the configuration's (for example a checkpoint's), or a
        split has no pair that is short enough.
        """
        size = len(self._encoded.vocabulary)
        refuse_other_size(size, self.vocabulary, self.corpus.splits["train"].place)
        return {"vocabulary": size}

    def setup(self, stage: str | None = None) -> None:
        """Read the sentences, unless that is done already, and warn of pairs that are left out."""
        self.inspect()
        if not self.splits and shard_of(self).rank == 0:
            _warn_of_left_out(self._encoded.splits, self.max_length)
        super().setup(stage)

    def read_split(self, name: SplitName) -> TokenPairs:
        """The pairs of a split."""
        return self._encoded.splits[name].tokens

    def train_dataloader(self) -> BatchLoader:
        """The training batches, shuffled, or in a fixed order for `overfit_batches`."""
        fixed = getattr(self.trainer, "overfit_batches", 0) > 0
        return self._buckets("train", self.batch_size, None if fixed else self.seed)

    def sentences(self, name: SplitName) -> list[tuple[str, str]]:
        """Source and target of each pair of a split, at the place given by `index`."""
        text = self._encoded.splits[name].text
        return list(zip(text.source, text.target, strict=True))

    def vocabulary_state(self) -> dict[str, Any]:
        """Vocabulary and languages as plain values, for the checkpoint."""
        return {**self._encoded.vocabulary.state(), "languages": list(self.languages)}

    def facts(self, name: SplitName) -> dict[str, Any]:
        """Notes about a split beside its result."""
        pairs = self._encoded.splits[name]
        sides = zip(self.languages, (pairs.tokens.source, pairs.tokens.target), strict=True)
        return {
            "text": pairs.text.place,
            "text_sha256": pairs.text.sha256(),
            "languages": " to ".join(self.languages),
            "pairs": len(pairs.tokens),
            "left_out": {"too_long": pairs.too_long, "empty": pairs.text.empty},
            "tokens": {language: int(side.lengths.sum()) for language, side in sides},
        }

    @property
    def _encoded(self) -> EncodedCorpus:
        return encoded(self.corpus, self.subwords, self.max_length)

    def _evaluation_loader(self, name: SplitName) -> BatchLoader:
        return self._buckets(name, self.eval_batch_size or self.batch_size, None)

    def _buckets(self, name: SplitName, batch_size: int, seed: int | None) -> BatchLoader:
        pairs = self._encoded.splits[name].tokens
        indices = LengthBuckets(
            pairs.lengths, batch_size=batch_size, batch_tokens=self.batch_tokens,
            seed=seed, shard=shard_of(self),
        )  # fmt: skip
        return BatchLoader(pairs, indices, seed=self.seed, num_workers=0, pin_memory=on_gpu(self))
