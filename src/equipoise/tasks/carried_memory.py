"""What a model keeps of one segment for the next, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, cast

from torch import Tensor, nn


class SequenceOutput(Protocol):
    """What a model of token sequences returns; see `LanguageModelling`."""

    @property
    def hidden(self) -> Tensor:
        """The states (B, T, D) that the softmax reads."""
        ...

    @property
    def memory(self) -> tuple[Tensor, ...]:
        """What the next segment is to be given."""
        ...

    @property
    def auxiliary(self) -> tuple[Tensor, ...]:
        """Further states that get a loss in training."""
        ...


class Carried(NamedTuple):
    """The memory of `streams` pieces of text, in the layout of the model."""

    streams: int
    memory: tuple[Tensor, ...]


def carried_into(
    kept: Mapping[str, Carried], stage: str, batch: Mapping[str, Tensor]
) -> tuple[Tensor, ...] | None:
    """Return the memory that a batch continues.

    None where its streams begin, or where the batch is of other streams, such as a part of one that
    somebody measures with. `start` is on the host: nothing waits for the device.
    """
    carried = kept.get(stage)
    if carried is None or bool(batch["start"]) or len(batch["tokens"]) != carried.streams:
        return None
    return carried.memory


@contextmanager
def memory_length(model: nn.Module, length: int | None) -> Iterator[None]:
    """Give the model another length of memory for a while; None, or a model without: its own."""
    if length is None or not hasattr(model, "memory_length"):
        yield
        return
    changed = cast(Any, model)
    own = changed.memory_length
    changed.memory_length = length
    try:
        yield
    finally:
        changed.memory_length = own
