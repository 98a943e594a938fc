"""Running a module for a measurement without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
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
    found = [value for part in module.modules() for value in (vars(part), *vars(part).values())]
    entries = [(value, value.copy()) for value in found if isinstance(value, dict | list)]
    values = [(tensor, tensor.detach().clone()) for tensor in _tensors(entries)]
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


def _tensors(entries: list[tuple[Container, Container]]) -> list[Tensor]:
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
