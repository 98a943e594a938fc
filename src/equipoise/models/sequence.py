"""What every model of token sequences returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

Shape = TypeVar("Shape")

LARGEST_CHARACTERS = 1000
LARGEST_SMALL = 100_000
PUBLISHED = "wikitext103"


class SequenceOutput(NamedTuple):
    """One segment's result.

    hidden (B, T, D): the states that a softmax reads · memory: what the next segment is to be
    given, without a graph; its layout is the model's own business · auxiliary: further hidden
    states, which get a loss of their own in training.
    """

    hidden: Tensor
    memory: tuple[Tensor, ...]
    auxiliary: tuple[Tensor, ...] = ()


def latest_steps(sequence: Tensor, length: int) -> Tensor:
    """Return the last `length` steps of (B, T, C), all where there are fewer, without a graph."""
    return sequence[:, max(sequence.shape[1] - length, 0) :].detach()


def size_for_vocabulary(name: str, vocabulary: int, sizes: Mapping[str, Shape]) -> Shape:
    """Return the entry `name` of `sizes`; `auto` goes by the size of the vocabulary.

    `auto` is tiny for up to 1,000 symbols (characters), small for up to 100,000 and the published
    size of WikiText-103 above. Raises ValueError when there is no such name.
    """
    if name == "auto":
        limits = {"tiny": LARGEST_CHARACTERS, "small": LARGEST_SMALL}
        name = next((n for n, largest in limits.items() if vocabulary <= largest), PUBLISHED)
    if name not in sizes:
        raise ValueError(f"there is no size {name!r}; choose auto, {', '.join(sizes)}")
    return sizes[name]


def adapted_size(size: Shape, **given: Any) -> Shape:
    """Return a size, a dataclass, with those fields replaced that are given and not None."""
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(size, **changes)  # type: ignore[type-var]


def memory_or_nothing(
    memory: tuple[Tensor, ...] | None, like: Tensor, widths: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """Return the memory, or one of no steps: a tensor (B, 0, width) for each of `widths`."""
    if memory is not None:
        return memory
    return tuple(like.new_empty(like.shape[0], 0, width) for width in widths)


def check_tokens(tokens: Tensor) -> None:
    """Raise ValueError unless the tokens are a matrix of whole numbers with at least one step."""
    if tokens.dim() != 2 or tokens.is_floating_point() or tokens.shape[1] == 0:
        raise ValueError(
            f"tokens are whole numbers (batch, time), got {tokens.dtype} {list(tokens.shape)}"
        )


def promoted(like: Tensor) -> torch.dtype:
    """Return float32, or the wider dtype of `like`: what a state is kept in under autocast."""
    return torch.promote_types(like.dtype, torch.float32)
