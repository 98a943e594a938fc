"""A text divided into splits, encoded with the vocabulary of its training part."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from equipoise.data.module import SplitName
from equipoise.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class EncodedText:
    """tokens: int32 (N,). unknown: how many the vocabulary does not have.

    sha256: of the text in UTF-8. source: what the user knows the text by. characters: its length.
    """

    tokens: Tensor
    unknown: int
    characters: int
    sha256: str
    source: str

    @property
    def out_of_vocabulary_rate(self) -> float:
        """The share of the tokens that the vocabulary does not have."""
        return self.unknown / max(len(self.tokens), 1)


@dataclass(frozen=True)
class Corpus:
    """The splits of one text and their common vocabulary."""

    vocabulary: Vocabulary
    splits: Mapping[SplitName, EncodedText]


def encode(text: str, vocabulary: Vocabulary, source: str) -> EncodedText:
    """Encode one split."""
    tokens, unknown = vocabulary.encode(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return EncodedText(tokens, unknown, len(text), digest, source)
