"""The tensors within the arguments or results of a network, and everything else in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

Build = Callable[[Iterator[Tensor]], Any]
PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


@dataclass(frozen=True)
class Nested:
    """A value taken apart: its tensors in order, and its form without them.

    form: equal for two values that differ only in the contents and addresses of their tensors.
    build: makes such a value from as many tensors.
    """

    tensors: tuple[Tensor, ...]
    form: tuple[Any, ...]
    build: Build

    @classmethod
    def of(cls, value: Any) -> Nested:
        """Look into tuples, lists, dictionaries and dataclasses; others count by identity."""
        if isinstance(value, Tensor):
            return cls((value,), _form_of_tensor(value), next)
        parts = _parts(value)
        if parts is None:
            known = value if isinstance(value, PLAIN) else id(value)
            return cls((), (type(value), known), lambda _: value)
        names, values, assemble = parts
        inner = [cls.of(part) for part in values]
        return cls(
            tuple(tensor for part in inner for tensor in part.tensors),
            (type(value), names, tuple(part.form for part in inner)),
            lambda tensors: assemble([part.build(tensors) for part in inner]),
        )

    def with_tensors(self, tensors: tuple[Tensor, ...]) -> Any:
        """The value with these tensors instead of its own."""
        return self.build(iter(tensors))


def _form_of_tensor(tensor: Tensor) -> tuple[Any, ...]:
    return (Tensor, tensor.shape, tensor.dtype, tensor.device, tensor.requires_grad)


Parts = tuple[tuple[Any, ...], list[Any], Callable[[list[Any]], Any]]


def _parts(value: Any) -> Parts | None:
    """Names and values of what a container holds, and how to put it together; None for others."""
    kind = type(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return value._fields, list(value), lambda made: kind(*made)
    if isinstance(value, tuple | list):
        return (), list(value), kind
    if isinstance(value, dict):
        return tuple(value), list(value.values()), lambda made: kind(zip(value, made, strict=True))
    if is_dataclass(value) and not isinstance(value, type):
        names = tuple(field.name for field in fields(value) if field.init)
        held = [getattr(value, name) for name in names]
        return names, held, lambda made: replace(value, **dict(zip(names, made, strict=True)))
    return None
