"""Words, characters or subwords as numbers, in the order of the published models; and back."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from equipoise.errors import UserError

END_OF_LINE = "<eos>"
UNKNOWN = "<unk>"
BOUNDARY = "<eos>"  # of subwords
WITHOUT_TOKENIZERS = (
    "task.unit=subword needs the package tokenizers: pip install 'equipoise[subword]', or choose "
    "task.unit=character or task.unit=word."
)
WINDOW = 16  # tokens that a text stream keeps
INCOMPLETE = "\ufffd"


class Encoded(NamedTuple):
    """tokens: int32 (N,). unknown: how many of them are not in the vocabulary."""

    tokens: Tensor
    unknown: int


class Vocabulary(Protocol):
    """Turns text into tokens and back."""

    @property
    def unit(self) -> str:
        """What a token is: "word", "character" or "subword"."""
        ...

    @property
    def first(self) -> int:
        """The token before the first one of a text."""
        ...

    def __len__(self) -> int:
        """The number of different tokens."""
        ...

    def encode(self, text: str) -> Encoded:
        """The tokens of a text."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some tokens."""
        ...

    def state(self) -> dict[str, Any]:
        """Plain values from which `vocabulary_from_state` restores it."""
        ...


class Words:
    """Words between white space, and `<eos>` at the end of each line, including blank ones.

    Order: `<eos>` is 0, then the words of the training text from the most to the least frequent,
    equally frequent ones by first appearance; case is kept. A word that is not in the training text
    becomes `<unk>`, an ordinary word of the published files, which is added last if they lack it.
    Source: the vocabulary of Transformer-XL, which the published DEQ-Transformer was trained with.
    """

    unit = "word"
    first = 0

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = list(symbols)
        self.number_of = {symbol: number for number, symbol in enumerate(self.symbols)}

    @classmethod
    def of(cls, text: str, limit: int | None = None) -> Words:
        """The vocabulary of a training text: its `limit` most frequent words, or all."""
        counts: Counter[str] = Counter()
        for line in lines(text):
            counts.update(line.split())
        counts.pop(END_OF_LINE, None)
        kept = [word for word, _ in counts.most_common(limit)]
        return cls([END_OF_LINE, *kept, *([] if UNKNOWN in kept else [UNKNOWN])])

    def __len__(self) -> int:
        """The number of different words."""
        return len(self.symbols)

    def encode(self, text: str) -> Encoded:
        """The words of the text and the ends of its lines."""
        numbers = np.fromiter((self.number_of.get(word, -1) for word in words(text)), np.int32)
        return with_unknown(numbers, self.number_of[UNKNOWN])

    def decode(self, tokens: Sequence[int]) -> str:
        """The words with spaces between them, each line on its own."""
        text = " ".join(self.symbols[token] for token in tokens)
        return re.sub(rf" ?{END_OF_LINE} ?", "\n", text)

    def state(self) -> dict[str, Any]:
        """Unit and symbols."""
        return {"unit": self.unit, "symbols": self.symbols}


class Characters:
    """Characters, including line ends, from the most to the least frequent, and `<unk>` last.

    Characters that are equally frequent in the training text are ordered by first appearance.
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
        """The number of different characters."""
        return len(self.symbols)

    def encode(self, text: str) -> Encoded:
        """The characters of the text."""
        points = code_points(text)
        inside = points < len(self.number_of)
        numbers = np.where(inside, self.number_of[np.where(inside, points, 0)], -1)
        return with_unknown(numbers, len(self) - 1)

    def decode(self, tokens: Sequence[int]) -> str:
        """The characters in a row."""
        return "".join(self.symbols[token] for token in tokens)

    def state(self) -> dict[str, Any]:
        """Unit and symbols."""
        return {"unit": self.unit, "symbols": self.symbols}


class Subwords:
    """Byte-level byte-pair encoding: it can represent every text, so nothing is unknown.

    tokenizer: the JSON text of a tokenizer of the package `tokenizers`.
    Source: Sennrich et al. 2016 (arXiv 1508.07909), on bytes as in GPT-2.
    """

    unit = "subword"

    def __init__(self, tokenizer: str) -> None:
        self.tokenizer: Any = package().Tokenizer.from_str(tokenizer)
        self.first = int(self.tokenizer.token_to_id(BOUNDARY))

    @classmethod
    def of(cls, text: str, size: int) -> Subwords:
        """Learn `size` parts from a training text.

        Raises UserError if `size` is too small for the 256 bytes, or `tokenizers` is missing.
        """
        if size < 257:
            raise UserError(
                f"task.subwords is {size}: set it to 257 or more, for the bytes and a boundary."
            )
        tokenizers = package()
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[BOUNDARY],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator((f"{line}\n" for line in lines(text)), trainer)
        return cls(tokenizer.to_str())

    def __len__(self) -> int:
        """The number of parts."""
        return int(self.tokenizer.get_vocab_size())

    def encode(self, text: str) -> Encoded:
        """The parts of the text; none is unknown."""
        tokens = self.tokenizer.encode(text, add_special_tokens=False).ids
        return Encoded(torch.tensor(tokens, dtype=torch.int32), 0)

    def encode_sentences(self, sentences: Sequence[str]) -> list[list[int]]:
        """The parts of each sentence, then `<eos>`, which inside a sentence is ordinary text."""
        self.tokenizer.encode_special_tokens = True
        try:
            encodings = self.tokenizer.encode_batch_fast(list(sentences), add_special_tokens=False)
        finally:
            self.tokenizer.encode_special_tokens = False
        return [[*encoding.ids, self.first] for encoding in encodings]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text; bytes that do not yet form a whole character become U+FFFD."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def state(self) -> dict[str, Any]:
        """Unit and tokenizer."""
        return {"unit": self.unit, "tokenizer": self.tokenizer.to_str()}


def package(name: str = "tokenizers", refusal: str = WITHOUT_TOKENIZERS) -> ModuleType:
    """A package that an extra installs. Raises UserError with `refusal` if it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(refusal) from error


def vocabulary_from_state(state: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary whose `state()` this is. Raises ValueError for an unknown unit."""
    if state["unit"] == "subword":
        return Subwords(state["tokenizer"])
    if state["unit"] == Words.unit:
        return Words(state["symbols"])
    if state["unit"] == Characters.unit:
        return Characters(state["symbols"])
    raise ValueError(f"there is no vocabulary of unit {state['unit']!r}")


class TextStream:
    """Gives the text that each further token adds, at a cost that does not grow with the text.

    A token may change how the one before is written (a space between words, the rest of a
    character's bytes); incomplete text is held back.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.recent: list[int] = []
        self.shown = 0

    def add(self, token: int) -> str:
        """The text that can be shown now but could not before."""
        if len(self.recent) >= WINDOW and self.shown == len(self._text()):
            self.recent = self.recent[-WINDOW // 2 :]
            self.shown = len(self._text())
        self.recent.append(token)
        text = self._text()
        if text.endswith(INCOMPLETE) and len(self.recent) < 2 * WINDOW:
            return ""
        piece, self.shown = text[self.shown :], len(text)
        return piece

    def _text(self) -> str:
        return self.vocabulary.decode(self.recent)


def lines(text: str) -> Iterator[str]:
    """Yield the lines between line feeds; other Unicode separators are part of a line."""
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
    """The Unicode code points of a text."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def with_unknown(numbers: np.ndarray[Any, Any], unknown: int) -> Encoded:
    """Replace -1 by the number `unknown`, and count how often."""
    missing = numbers < 0
    tokens = np.where(missing, unknown, numbers).astype(np.int32)
    return Encoded(torch.from_numpy(tokens), int(missing.sum()))
