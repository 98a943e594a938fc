"""What every model of token sequences returns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class SequenceOutput(NamedTuple):
    """One segment's result.

    hidden (B, T, D): the states that a softmax reads · memory: what to pass to the next segment,
    without a graph; only the model knows its layout · auxiliary: further hidden states, each with
    its own loss in training.
    """

    hidden: Tensor
    memory: tuple[Tensor, ...]
    auxiliary: tuple[Tensor, ...] = ()


def latest_steps(sequence: Tensor, length: int) -> Tensor:
    """The last `length` steps of (B, T, C), or all if there are fewer, without a graph."""
    return sequence[:, max(sequence.shape[1] - length, 0) :].detach()


def memory_or_nothing(
    memory: tuple[Tensor, ...] | None, like: Tensor, widths: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """The memory, or one of no steps: a tensor (B, 0, width) for each of `widths`."""
    if memory is not None:
        return memory
    return tuple(like.new_empty(like.shape[0], 0, width) for width in widths)


def check_tokens(tokens: Tensor) -> None:
    """Raise ValueError unless the tokens are an integer matrix with at least one step."""
    if tokens.dim() != 2 or tokens.is_floating_point() or tokens.shape[1] == 0:
        raise ValueError(
            f"tokens must be whole numbers (batch, time), got {tokens.dtype} {list(tokens.shape)}"
        )


def promoted(like: Tensor) -> torch.dtype:
    """The dtype in which a state is kept: that of `like`, under autocast at least float32."""
    autocast = torch.is_autocast_enabled(like.device.type)
    return torch.promote_types(like.dtype, torch.float32) if autocast else like.dtype
