"""Words or characters as numbers, in the order in which the published models count them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

END_OF_LINE = "<eos>"
UNKNOWN = "<unk>"


class Encoded(NamedTuple):
    """tokens: int32 (N,). unknown: how many of them the vocabulary does not have."""

    tokens: Tensor
    unknown: int


class Vocabulary(Protocol):
    """What turns text into tokens and back."""

    @property
    def unit(self) -> str:
        """What a token is: "word", "character" or "subword"."""
        ...

    @property
    def first(self) -> int:
        """The token that stands before the first one of a text."""
        ...

    def __len__(self) -> int:
        """Return the number of different tokens."""
        ...

    def encode(self, text: str) -> Encoded:
        """Return the tokens of a text."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of some tokens."""
        ...

    def state(self) -> dict[str, Any]:
        """Return plain values from which `vocabulary_from_state` makes it again."""
        ...


class Words:
    """Words between white space, and `<eos>` at the end of each line, of blank ones too.

    Order: `<eos>` is 0, then the words of the training text from the most to the least frequent,
    those equally frequent by first appearance; case is kept. A word that the training text does
    not have becomes `<unk>`, an ordinary word of the published files, added last where they have
    none.
    Source: the vocabulary of Transformer-XL, which the published DEQ-Transformer was trained with.
    """

    unit = "word"
    first = 0

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = list(symbols)
        self.number_of = {symbol: number for number, symbol in enumerate(self.symbols)}

    @classmethod
    def of(cls, text: str, limit: int | None = None) -> Words:
        """The vocabulary of a training text; `limit` keeps so many of the most frequent words."""
        counts: Counter[str] = Counter()
        for line in lines(text):
            counts.update(line.split())
        counts.pop(END_OF_LINE, None)
        kept = [word for word, _ in counts.most_common(limit)]
        return cls([END_OF_LINE, *kept, *([] if UNKNOWN in kept else [UNKNOWN])])

    def __len__(self) -> int:
        """Return the number of different words."""
        return len(self.symbols)

    def encode(self, text: str) -> Encoded:
        """Return the words of the text and the ends of its lines."""
        found = np.fromiter((self.number_of.get(word, -1) for word in words(text)), np.int32)
        return with_unknown(found, self.number_of[UNKNOWN])

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the words with spaces between them, each line on its own."""
        text = " ".join(self.symbols[token] for token in tokens)
        return re.sub(rf" ?{END_OF_LINE} ?", "\n", text)

    def state(self) -> dict[str, Any]:
        """Return unit and symbols."""
        return {"unit": self.unit, "symbols": self.symbols}


class Characters:
    """Characters, line ends among them, from the most to the least frequent, and `<unk>` last.

    Those equally frequent in the training text are ordered by first appearance.
    """

    unit = "character"

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = list(symbols)
        characters = self.symbols[:-1]
        self.first = characters.index("\n") if "\n" in characters else 0
        self.number_of = np.full(max(map(ord, characters)) + 1, -1, dtype=np.int32)
        self.number_of[[ord(character) for character in characters]] = np.arange(len(characters))

    @classmethod
    def of(cls, text: str) -> Characters:
        """The vocabulary of a training text."""
        points, places, counts = np.unique(code_points(text), return_index=True, return_counts=True)
        order = np.lexsort((places, -counts))
        return cls([*(chr(point) for point in points[order]), UNKNOWN])

    def __len__(self) -> int:
        """Return the number of different characters."""
        return len(self.symbols)

    def encode(self, text: str) -> Encoded:
        """Return the characters of the text."""
        points = code_points(text)
        known = points < len(self.number_of)
        found = np.where(known, self.number_of[np.where(known, points, 0)], -1)
        return with_unknown(found, len(self) - 1)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the characters in a row."""
        return "".join(self.symbols[token] for token in tokens)

    def state(self) -> dict[str, Any]:
        """Return unit and symbols."""
        return {"unit": self.unit, "symbols": self.symbols}


def vocabulary_from_state(state: Mapping[str, Any]) -> Vocabulary:
    """Return the vocabulary whose `state()` this is. Raises ValueError for an unknown unit."""
    if state["unit"] == "subword":
        from equipoise.data.subwords import Subwords

        return Subwords(state["tokenizer"])
    if state["unit"] == Words.unit:
        return Words(state["symbols"])
    if state["unit"] == Characters.unit:
        return Characters(state["symbols"])
    raise ValueError(f"there is no vocabulary of unit {state['unit']!r}")


def lines(text: str) -> Iterator[str]:
    """Yield the lines between line feeds; other separators of Unicode are part of a line."""
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin)
        end = len(text) if end < 0 else end
        yield text[begin:end]
        begin = end + 1


def words(text: str) -> Iterable[str]:
    """Yield the words of each line, then `<eos>`."""
    for line in lines(text):
        yield from line.split()
        yield END_OF_LINE


def code_points(text: str) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Return the Unicode code points of a text."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def with_unknown(found: np.ndarray[Any, Any], unknown: int) -> Encoded:
    """Put the number `unknown` in place of -1, and count how often."""
    missing = found < 0
    tokens = np.where(missing, unknown, found).astype(np.int32)
    return Encoded(torch.from_numpy(tokens), int(missing.sum()))
