"""Translate sentences from standard input with a trained model, one a line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from equipoise.commands.stored_model import StoredRequest, read_model, read_settings
from equipoise.errors import UserError

if TYPE_CHECKING:
    from equipoise.data.text.vocabulary import Subwords
    from equipoise.models.beam_search import BeamSearch, EncoderDecoder

COMMAND = "translate"
SETTINGS = """the settings:
  ckpt_path=<file>     a checkpoint of a translation run
  beam=<number>        how many beginnings of a translation are kept at each step; 1: always the
                       most likely token; default: what the task's test uses
  length_penalty=<a>   above 0 favours longer translations, whose log probability is divided by
                       length^a; default: what the task's test uses
  batch_size=32        how many sentences are read before they are translated together
  device=cpu           where to compute; default: a GPU if available
  trust=[my_package]   packages of your own whose classes the checkpoint may name

An empty line stays empty:
  echo "Ein Hund rennt." | python -m equipoise translate ckpt_path=<run>/checkpoints/best.ckpt
"""


@dataclass
class Request(StoredRequest):
    """The settings of a translation; None: as in the task's test."""

    beam: int | None = None
    length_penalty: float | None = None
    batch_size: int = 32


class Line(NamedTuple):
    """A line of the input, and its number, counted from 1."""

    number: int
    text: str


def main(words: Sequence[str]) -> int:
    """Write a translation for each line as soon as its batch is done; returns 0.

    Raises UserError.
    """
    request = parse(words)
    translator = restore(request)
    began, sentences = time.perf_counter(), 0
    reader = numbered(sys.stdin.buffer)
    while batch := list(islice(reader, request.batch_size)):
        for translation in translator(batch):
            print(translation)
        sys.stdout.flush()
        sentences += sum(bool(line.text) for line in batch)
    print(summary(sentences, translator.tokens, time.perf_counter() - began), file=sys.stderr)
    return 0


def parse(words: Sequence[str]) -> Request:
    """Read key=value words.

    Raises UserError for an unknown key, a value that cannot be used, or without a checkpoint.
    """
    request = read_settings(COMMAND, Request(), words, str(__doc__), SETTINGS)
    for name, least in (("beam", 1), ("length_penalty", 0), ("batch_size", 1)):
        value = getattr(request, name)
        if value is not None and not least <= value < float("inf"):
            raise UserError(f"translate: {name}={value} must be {least} or more")
    return request


def restore(request: Request) -> Translator:
    """The model of a checkpoint, ready to translate.

    Raises UserError where the checkpoint is not of a translation task.
    """
    stored = read_model(COMMAND, request)
    from equipoise.models.beam_search import BeamSearch

    objective = stored.task["objective"]
    search = BeamSearch(
        stored.vocabulary.first,
        request.beam or int(objective.get("beam", 1)),
        float(objective.get("length_penalty", 1.0))
        if request.length_penalty is None
        else request.length_penalty,
    )
    model = cast("EncoderDecoder", stored.model)
    vocabulary = cast("Subwords", stored.vocabulary)
    return Translator(model, vocabulary, search, stored.task.get("max_length"), stored.device)


@dataclass
class Translator:
    """Translates lines; `tokens` counts the tokens it has written.

    max_length: number of tokens of the longest sentence in training, None where unknown.
    """

    model: EncoderDecoder
    vocabulary: Subwords
    search: BeamSearch
    max_length: int | None
    device: Any
    tokens: int = 0

    def __call__(self, lines: Sequence[Line]) -> Iterator[str]:
        """The translation of each line, "" of an empty one.

        Raises UserError where the model cannot read a sentence because of its length.
        """
        sentences = [line for line in lines if line.text]
        encoded = self.vocabulary.encode_sentences([line.text for line in sentences])
        for line, tokens in zip(sentences, encoded, strict=True):
            self._warn_of_length(line, len(tokens))
        try:
            found = iter(self._translated(encoded) if encoded else [])
        except ValueError as error:
            longest = max(zip(map(len, encoded), sentences, strict=True))
            raise UserError(
                f"line {longest[1].number} has {longest[0]} tokens, which the model cannot "
                f"translate ({error}): split the sentence"
            ) from error
        return (next(found) if line.text else "" for line in lines)

    def _warn_of_length(self, line: Line, length: int) -> None:
        if self.max_length is not None and length > self.max_length:
            print(
                f"warning: line {line.number} has {length} tokens, but no sentence in training had "
                f"more than {self.max_length}: expect a bad translation",
                file=sys.stderr,
            )

    def _translated(self, sentences: Sequence[list[int]]) -> list[str]:
        import torch

        length = max(map(len, sentences))
        rows = [row + [self.vocabulary.first] * (length - len(row)) for row in sentences]
        source = torch.tensor(rows, device=self.device)
        lengths = torch.tensor([[len(row)] for row in sentences], device=self.device)
        present = torch.arange(length, device=self.device) < lengths
        with torch.inference_mode():
            found = self.search(self.model, self.model.encode(source, present), present)
        self.tokens += sum(len(hypothesis.tokens) for hypothesis in found)
        return [one_line(self.vocabulary.decode(hypothesis.tokens)) for hypothesis in found]


def numbered(lines: Iterable[bytes]) -> Iterator[Line]:
    """The lines without white space around them. Raises UserError where one is not UTF-8."""
    for number, line in enumerate(lines, 1):
        try:
            yield Line(number, line.decode("utf-8-sig" if number == 1 else "utf-8").strip())
        except UnicodeDecodeError as error:
            raise UserError(
                f"line {number} of the input is not UTF-8 ({error.reason} at byte {error.start}): "
                "convert it first, with iconv for example"
            ) from error


def lines_of(file: Path) -> list[Line]:
    """The lines of a file. Raises UserError where it cannot be read, is empty or is not UTF-8."""
    try:
        with file.open("rb") as content:
            lines = list(numbered(content))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    if not lines:
        raise UserError(f"{file} is empty: it needs one sentence per line")
    return lines


def one_line(text: str) -> str:
    """The text with its line breaks replaced by spaces, so that line n translates line n."""
    return " ".join(text.splitlines())


def summary(sentences: int, tokens: int, seconds: float) -> str:
    """How much was translated, and the time per sentence."""
    each = 1000 * seconds / max(sentences, 1)
    return f"{sentences} sentences, {tokens} tokens, {each:.0f} ms a sentence"
