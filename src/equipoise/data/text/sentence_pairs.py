"""Pairs of sentences that translate each other, as text and as tokens in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.data.loading import Batch
from equipoise.data.module import SplitName
from equipoise.data.sampling import BatchIndex
from equipoise.data.text.module import IGNORED

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
    """Sentences of tokens, one after another in a single tensor. lengths: int64 (N,)."""

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
