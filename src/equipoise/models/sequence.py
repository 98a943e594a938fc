"""What every model of token sequences returns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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
    """The last `length` steps of (B, T, C), all where there are fewer, without a graph."""
    return sequence[:, max(sequence.shape[1] - length, 0) :].detach()


def memory_or_nothing(
    memory: tuple[Tensor, ...] | None, like: Tensor, widths: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """The memory, or one of no steps: a tensor (B, 0, width) for each of `widths`."""
    if memory is not None:
        return memory
    return tuple(like.new_empty(like.shape[0], 0, width) for width in widths)


def check_tokens(tokens: Tensor) -> None:
    """Raise ValueError unless the tokens are a matrix of whole numbers with at least one step."""
    if tokens.dim() != 2 or tokens.is_floating_point() or tokens.shape[1] == 0:
        raise ValueError(
            f"tokens must be whole numbers (batch, time), got {tokens.dtype} {list(tokens.shape)}"
        )


def promoted(like: Tensor) -> torch.dtype:
    """What a state is kept in: the dtype of `like`, under autocast float32 at least."""
    autocast = torch.is_autocast_enabled(like.device.type)
    return torch.promote_types(like.dtype, torch.float32) if autocast else like.dtype
