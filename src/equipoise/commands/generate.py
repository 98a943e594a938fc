"""Continue a text with a trained language model, token by token."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from equipoise.commands.stored_model import StoredRequest, read_model, read_settings
from equipoise.errors import UserError

if TYPE_CHECKING:
    from equipoise.data.text.vocabulary import Vocabulary
    from equipoise.models.generation import Generator

COMMAND = "generate"
SETTINGS = """the settings, whose values are taken exactly as they stand:
  ckpt_path=<file>     a checkpoint of a language-modelling run
  prompt="Once upon"   the text to continue, used verbatim; empty: start a new text
  length=256           how many tokens (characters, words or parts of words) to add
  temperature=1.0      below 1 favours likely tokens, above 1 unlikely ones
  top_p=0.95           draw from the most likely tokens that together have this probability
  greedy               always take the most likely token
  seed=0               of the draws
  context=<tokens>     how much of the text so far the model sees; default: what the task's
                       evaluation uses
  device=cpu           where to compute; default: a GPU if available
  trust=[my_package]   packages of your own whose classes the checkpoint may name
"""
TIMED = 32


@dataclass
class Request(StoredRequest):
    """The settings of a continuation."""

    prompt: str = ""
    length: int = 256
    temperature: float = 1.0
    top_p: float = 0.95
    greedy: bool = False
    seed: int = 0
    context: int | None = None


def main(words: Sequence[str]) -> int:
    """Write the text to the terminal as it is generated; returns 0. Raises UserError."""
    request = parse(words)
    generator, vocabulary = restore(request)
    write(request, generator, vocabulary)
    return 0


def parse(words: Sequence[str]) -> Request:
    """Read key=value words, whose values are taken as they stand.

    Raises UserError for an unknown key, a value of the wrong kind, or without a checkpoint.
    """
    request = read_settings(COMMAND, Request(), words, str(__doc__), SETTINGS)
    check(request)
    return request


def check(request: Request) -> None:
    """Raise UserError where a number cannot be used."""
    if request.length < 1:
        raise UserError(f"generate: length={request.length} must be 1 or more")
    if request.temperature <= 0:
        raise UserError(
            f"generate: temperature={request.temperature} must be above 0; for the most likely "
            "token, use greedy"
        )
    if not 0 < request.top_p <= 1:
        raise UserError(f"generate: top_p={request.top_p} must lie above 0, up to 1")
    if request.context is not None and request.context < 1:
        raise UserError(f"generate: context={request.context} must be 1 or more")


def restore(request: Request) -> tuple[Generator, Vocabulary]:
    """Build the model of a checkpoint with its weights, and its vocabulary.

    Raises UserError where the checkpoint is not of a language model.
    """
    stored = read_model(COMMAND, request)
    from equipoise.models.generation import Generator, Sampling

    sampling = Sampling(request.temperature, request.top_p, request.greedy, request.seed)
    context = request.context or context_of(stored.task)
    generator = Generator(stored.model, sampling, context=context, device=str(stored.device))
    return generator, stored.vocabulary


def context_of(task: dict[str, Any]) -> int:
    """The memory length of the task's evaluation, else of its training, else one segment."""
    lengths = ("eval_memory_length", "memory_length", "segment_length")
    return next(int(task[name]) for name in lengths if task.get(name))


def write(request: Request, generator: Generator, vocabulary: Vocabulary) -> None:
    """Print prompt and continuation as they are generated, then time per token on stderr."""
    from equipoise.data.text.vocabulary import TextStream

    prompt = encoded_prompt(request.prompt, vocabulary)
    stream = TextStream(vocabulary)
    sys.stdout.write("".join(stream.add(token) for token in prompt) if request.prompt else "")
    seconds: list[float] = []
    began = time.perf_counter()
    for token in generator.continuation(prompt, request.length):
        sys.stdout.write(stream.add(token))
        sys.stdout.flush()
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    print()
    print(summary(seconds, generator.evaluations), file=sys.stderr)


def encoded_prompt(prompt: str, vocabulary: Vocabulary) -> list[int]:
    """The tokens of the prompt, or of an empty one the token that begins a text."""
    encoded = vocabulary.encode(prompt)
    tokens = [int(token) for token in encoded.tokens.tolist()]
    if vocabulary.unit == "word" and tokens and not prompt.endswith("\n"):
        tokens.pop()  # the end of the line, which the prompt does not include yet
    if encoded.unknown:
        what = f"{encoded.unknown} of the {len(tokens)} {vocabulary.unit}s of the prompt"
        print(f"warning: the model has never seen {what}", file=sys.stderr)
    return tokens or [vocabulary.first]


def summary(seconds: Sequence[float], evaluations: float | None) -> str:
    """How long a token took, and whether later ones took longer."""
    waited = seconds[1:] or seconds  # the first one includes reading the prompt
    parts = [f"{len(seconds)} tokens, {1000 * sum(waited) / len(waited):.1f} ms each"]
    if len(waited) >= 3 * TIMED:
        first, last = waited[TIMED : 2 * TIMED], waited[-TIMED:]
        usual = [1000 * median(part) for part in (first, last)]
        parts.append(f"{usual[0]:.1f} ms after a warm-up of {TIMED}, {usual[1]:.1f} ms at the end")
    if evaluations is not None:
        parts.append(f"{evaluations:.1f} evaluations of f each")
    return "; ".join(parts)
