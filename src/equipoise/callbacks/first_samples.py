"""A part of a batch, whatever a batch of the task looks like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def first_samples(batch: Any, samples: int | None) -> Any:
    """The first rows of a batch; the number of its samples is the length of its first tensor.

    Of mappings, tuples and lists, nested too, every tensor of that length is cut.
    """
    size = next((len(tensor) for tensor in _tensors(batch) if tensor.ndim), None)
    if samples is None or size is None or size <= samples:
        return batch
    return _cut(batch, size, samples)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping | tuple | list):
        for value in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(value)


def _cut(batch: Any, size: int, samples: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[:samples] if batch.ndim and len(batch) == size else batch
    if isinstance(batch, Mapping):
        return {name: _cut(value, size, samples) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        values = [_cut(value, size, samples) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    return batch
