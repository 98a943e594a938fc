"""What the data modules of translation share: pairs of sentences in batches of similar length."""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from equipoise.data.loading import Batch, BatchLoader
from equipoise.data.module import (
    SPLITS,
    SplitDataModule,
    SplitName,
    refuse_below,
    shard_of,
)
from equipoise.data.sampling import BatchIndex, LengthBuckets
from equipoise.data.text.module import IGNORED, refuse_other_size
from equipoise.data.text.vocabulary import Subwords, package
from equipoise.errors import UserError

WITHOUT_TOKENIZERS = (
    "Translation needs the package tokenizers: pip install 'equipoise[translation]'."
)

Languages = tuple[str, str]


@dataclass(frozen=True, eq=False)
class SentencePairs:
    """Sentences that translate each other, as many in `source` as in `target`, none of them empty.

    place: where they come from. empty: how many pairs were left out because a side was empty.
    """

    source: Sequence[str]
    target: Sequence[str]
    place: str
    empty: int = 0

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.source)

    def sha256(self) -> str:
        """The hash of the pairs in UTF-8, a line for each, with a tab between its sides."""
        digest = hashlib.sha256()
        for pair in zip(self.source, self.target, strict=True):
            digest.update(("\t".join(pair) + "\n").encode())
        return digest.hexdigest()

    def at(self, rows: Sequence[int], place: str | None = None, empty: int = 0) -> SentencePairs:
        """The pairs of some rows."""
        source, target = ([side[row] for row in rows] for side in (self.source, self.target))
        return SentencePairs(source, target, place or self.place, empty)


@dataclass(frozen=True, eq=False)
class ParallelCorpus:
    """The pairs of each split, and the languages of their two sides."""

    languages: Languages
    splits: Mapping[SplitName, SentencePairs]


class TokenSentences:
    """Sentences of tokens, one after the other in one tensor. lengths: int64 (N,)."""

    def __init__(self, sentences: Sequence[Sequence[int]]) -> None:
        self.lengths = torch.tensor([len(sentence) for sentence in sentences], dtype=torch.int64)
        self.begins = self.lengths.cumsum(0) - self.lengths
        tokens = [token for sentence in sentences for token in sentence]
        self.tokens = torch.tensor(tokens, dtype=torch.int32)

    def padded(self, rows: Tensor, padding: int) -> tuple[Tensor, Tensor]:
        """The sentences of some rows (B,) as int64 (B, T), and bool (B, T): False for padding."""
        lengths = self.lengths[rows].unsqueeze(1)
        places = torch.arange(int(lengths.max()))
        stored = (self.begins[rows].unsqueeze(1) + places).clamp(max=len(self.tokens) - 1)
        present = places < lengths
        return self.tokens[stored].long().masked_fill(~present, padding), present


class TokenPairs:
    """Pairs of sentences in tokens, each sentence with the `boundary` at its end.

    A batch is {"source": int64 (B, S), "present": bool (B, S), False for padding, "tokens": int64
    (B, T), the decoder's input: the boundary and the target without its last token, "targets":
    int64 (B, T), -100 for padding, "index": int64 (B,)}.
    """

    def __init__(self, source: TokenSentences, target: TokenSentences, boundary: int) -> None:
        self.source = source
        self.target = target
        self.boundary = boundary

    @property
    def lengths(self) -> Tensor:
        """The tokens of the longer side of each pair (N,)."""
        return torch.maximum(self.source.lengths, self.target.lengths)

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.source.lengths)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """The pairs of the rows in `index`."""
        source, source_present = self.source.padded(index.rows, self.boundary)
        target, target_present = self.target.padded(index.rows, self.boundary)
        begin = torch.full((len(target), 1), self.boundary)
        return {
            "source": source,
            "present": source_present,
            "tokens": torch.cat([begin, target[:, :-1]], dim=1),
            "targets": target.masked_fill(~target_present, IGNORED),
            "index": index.rows,
        }


@dataclass(frozen=True, eq=False)
class EncodedPairs:
    """The pairs of a split that are short enough, as text and as tokens.

    too_long: how many more there were.
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

    Warns where pairs are left out. Raises UserError where none is short enough, or the package
    `tokenizers` is missing.
    """
    package(refusal=WITHOUT_TOKENIZERS)
    train = corpus.splits["train"]
    vocabulary = Subwords.of("\n".join([*train.source, *train.target]), subwords)
    splits = {name: _encode(name, corpus.splits[name], vocabulary, max_length) for name in SPLITS}
    _warn_of_left_out(splits, max_length)
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
    long = [
        f"{pairs.too_long:,} of {len(pairs.text) + pairs.too_long:,} for {name}"
        for name, pairs in splits.items()
        if pairs.too_long
    ]
    empty = [f"{p.text.empty:,} for {name}" for name, p in splits.items() if p.text.empty]
    reasons = [f"{', '.join(long)}, with more tokens on a side than task.max_length={max_length}"]
    reasons = (reasons if long else []) + (
        [f"{', '.join(empty)}, with nothing on a side"] if empty else []
    )
    if reasons:
        warnings.warn(f"pairs are left out: {'; '.join(reasons)}", stacklevel=2)


@dataclass(kw_only=True, eq=False)
class ParallelDataModule(SplitDataModule, ABC):
    """Pairs of sentences of similar length in batches (`TokenPairs`), in one vocabulary.

    A batch has at most `batch_size` pairs, in evaluation `eval_batch_size` (None: as many), and at
    most `batch_tokens` tokens: the pairs times the longest sentence of the batch, on whichever
    side. Pairs with more than `max_length` tokens on a side, `<eos>` included, are left out of
    every split, counted and reported. `subwords` is how many parts byte-pair encoding learns from
    the training sentences of both languages; `vocabulary` the size that it must have, None for
    whichever it gets. `source` and `target` are the languages, None for those that the data names
    first and second.
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
        """Read all splits; raises UserError when they cannot be had."""

    @property
    def corpus(self) -> ParallelCorpus:
        """The sentences, read when they are first needed."""
        if self._corpus is None:
            self._corpus = self.read_corpus()
        return self._corpus

    @property
    def languages(self) -> Languages:
        """The language that is translated, and the one that it is translated into."""
        return self.corpus.languages

    def inspect(self) -> dict[str, Any]:
        """Read the sentences and return the size of their vocabulary.

        Raises UserError where it has not the size that the configuration, of a checkpoint say, asks
        for, or a split has no pair that is short enough.
        """
        size = len(self._encoded.vocabulary)
        refuse_other_size(size, self.vocabulary, self.corpus.splits["train"].place)
        return {"vocabulary": size}

    def setup(self, stage: str | None = None) -> None:
        """Read the sentences, unless they have been read, and check their vocabulary."""
        self.inspect()
        super().setup(stage)

    def read_split(self, name: SplitName) -> TokenPairs:
        """The pairs of a split."""
        return self._encoded.splits[name].tokens

    def train_dataloader(self) -> BatchLoader:
        """The training batches, shuffled, or in a fixed order for `overfit_batches`."""
        fixed = getattr(self.trainer, "overfit_batches", 0) > 0
        return self._buckets("train", self.batch_size, None if fixed else self.seed)

    def sentences(self, name: SplitName) -> list[tuple[str, str]]:
        """Source and target of each pair of a split, at the place that `index` names."""
        text = self._encoded.splits[name].text
        return list(zip(text.source, text.target, strict=True))

    def vocabulary_state(self) -> dict[str, Any]:
        """Vocabulary and languages as plain values, for the checkpoint."""
        return {**self._encoded.vocabulary.state(), "languages": list(self.languages)}

    def facts(self, name: SplitName) -> dict[str, Any]:
        """What to know about a split beside the result on it."""
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
        return BatchLoader(pairs, indices, seed=self.seed, num_workers=0)
