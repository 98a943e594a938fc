"""Measuring on a part of a batch without leaving a trace in the module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Container = dict[Any, Any] | list[Any]


@contextmanager
def preserved(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Give the module, its parts and torch's generators back as they were.

    Kept are which objects the attributes hold, the entries of dictionaries and lists among them
    (buffers, submodules and hooks included), and the values of buffers and of tensors that are
    attributes. Parameters are not: whoever measures does not change them.
    """
    held = [value for part in module.modules() for value in (vars(part), *vars(part).values())]
    entries = [(value, value.copy()) for value in held if isinstance(value, dict | list)]
    values = [(tensor, tensor.detach().clone()) for tensor in _writable_tensors(entries)]
    others = [] if device.type == "cpu" else [device]
    try:
        with torch.random.fork_rng(others, device_type=device.type):
            yield
    finally:
        for container, kept in entries:
            _restore(container, kept)
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)


def _writable_tensors(entries: list[tuple[Container, Container]]) -> list[Tensor]:
    """Every tensor that is an entry and that somebody can write into, once; no parameters."""
    inside = (v for _, kept in entries for v in (kept.values() if isinstance(kept, dict) else kept))
    tensors = (v for v in inside if isinstance(v, Tensor) and not isinstance(v, nn.Parameter))
    return list({id(tensor): tensor for tensor in tensors if _writable(tensor)}.values())


def _writable(tensor: Tensor) -> bool:
    """Neither made in inference mode, as a metric's state in validation, nor an expanded view."""
    if tensor.is_inference() or tensor.layout != torch.strided:
        return False
    return all(
        step > 0 or size == 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True)
    )


def _restore(container: Container, kept: Container) -> None:
    container.clear()
    if isinstance(container, dict):
        container.update(kept)
    else:
        container.extend(kept)


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
