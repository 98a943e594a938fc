"""Parts of words by byte-pair encoding, which the package `tokenizers` learns."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from equipoise.data.vocabulary import Encoded, lines
from equipoise.errors import UserError

BOUNDARY = "<eos>"


class Subwords:
    """Byte-level byte-pair encoding: every text can be written in it, so nothing is unknown.

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

        Raises UserError where `size` has no room for the 256 bytes, or `tokenizers` is missing.
        """
        if size < 257:
            raise UserError(
                f"task.subwords is {size}: set it to 257 or more, for the bytes and a boundary."
            )
        tokenizers = package()
        learnt = tokenizers.Tokenizer(tokenizers.models.BPE())
        learnt.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        learnt.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[BOUNDARY],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        learnt.train_from_iterator((f"{line}\n" for line in lines(text)), trainer)
        return cls(learnt.to_str())

    def __len__(self) -> int:
        """Return the number of parts."""
        return int(self.tokenizer.get_vocab_size())

    def encode(self, text: str) -> Encoded:
        """Return the parts of the text; none is unknown."""
        tokens = self.tokenizer.encode(text, add_special_tokens=False).ids
        return Encoded(torch.tensor(tokens, dtype=torch.int32), 0)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text; bytes that are no whole character yet become U+FFFD."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def state(self) -> dict[str, Any]:
        """Return unit and tokenizer."""
        return {"unit": self.unit, "tokenizer": self.tokenizer.to_str()}


def package() -> ModuleType:
    """Return the package `tokenizers`. Raises UserError where it is not installed."""
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise UserError(
            "task.unit=subword needs the package tokenizers: pip install 'equipoise[subword]', or "
            "choose task.unit=character or task.unit=word."
        ) from error
