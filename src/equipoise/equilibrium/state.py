"""A state is a tensor, or a tuple of tensors, whose first dimension is the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

State = Tensor | tuple[Tensor, ...]
Function = Callable[..., State]
"""f(z, *inputs) -> State: the map whose fixed point is sought."""


def parts(state: State) -> tuple[Tensor, ...]:
    """The tensors of a state, one or several."""
    return (state,) if isinstance(state, Tensor) else tuple(state)


def as_state(value: object, name: str = "a state") -> State:
    """`value` as a state: a list is taken as a tuple.

    Raises TypeError, with `name` in the message, for anything but a tensor or tensors, and for
    integer tensors, which an iteration cannot converge to.
    """
    tensors = (value,) if isinstance(value, Tensor) else value
    if not isinstance(tensors, tuple | list):
        raise TypeError(
            f"{name} must be a tensor or a tuple of tensors, got {_described(value)}{_hint(value)}"
        )
    for part in tensors:
        if not isinstance(part, Tensor):
            raise TypeError(f"every part of {name} must be a tensor, got {_described(part)}")
        if not (part.is_floating_point() or part.is_complex()):
            raise TypeError(f"{name} must be of a floating or complex dtype, got {part.dtype}")
    return value if isinstance(value, Tensor) else cast(State, tuple(tensors))


def _described(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _hint(value: object) -> str:
    return ": pass its values as a tuple" if isinstance(value, dict) else ""


def detached(state: State) -> State:
    """The same values as leaves of a new graph, which require gradients."""
    if isinstance(state, Tensor):
        return state.detach().requires_grad_()
    return tuple(part.detach().requires_grad_() for part in state)


@dataclass(frozen=True)
class Layout:
    """How a state is laid out as one matrix (B, D), a row per sample; solvers see nothing else.

    A complex value takes two columns, its real and its imaginary part: the algebra is real.
    channels_last: for each part whether its columns are in that order, as in the memory of a state
    with such strides, so that f gets and gives views of the matrix.
    """

    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]
    dtype: torch.dtype
    device: torch.device
    is_tuple: bool
    channels_last: tuple[bool, ...]

    @classmethod
    def of(cls, state: State, dtype: torch.dtype | None = None) -> Layout:
        """The layout of `state`; its rows are kept in `dtype`, by default float32 or wider.

        Raises ValueError if the parts do not share the batch dimension, TypeError if they are not
        tensors.
        """
        tensors = parts(as_state(state))
        if not tensors or any(part.ndim == 0 for part in tensors):
            raise ValueError("a state needs at least one tensor with a batch dimension")
        if any(part.shape[0] != tensors[0].shape[0] for part in tensors[1:]):
            sizes = ", ".join(str(tuple(part.shape)) for part in tensors)
            raise ValueError(f"all parts of a state must share the batch dimension, got {sizes}")
        if dtype is None:
            dtype = torch.float32
            for part in tensors:
                dtype = torch.promote_types(dtype, part.dtype.to_real())
        shapes = tuple(part.shape for part in tensors)
        dtypes = tuple(part.dtype for part in tensors)
        last = tuple(_is_channels_last(part) for part in tensors)
        return cls(shapes, dtypes, dtype, tensors[0].device, not isinstance(state, Tensor), last)

    @property
    def batch(self) -> int:
        """The number of samples B."""
        return self.shapes[0][0]

    def with_batch(self, batch: int) -> Layout:
        """The same for another number of samples."""
        return replace(self, shapes=tuple(torch.Size((batch, *shape[1:])) for shape in self.shapes))

    def flatten(self, state: State) -> Tensor:
        """State -> (B, D), in the layout's dtype; no copy for one contiguous tensor of that dtype.

        Raises ValueError if the state has another layout, for example because f changes the shape.
        """
        if self._plain and isinstance(state, Tensor) and state.shape == self.shapes[0]:
            return state.reshape(self._matrix).to(self.dtype)
        tensors = parts(state)
        if tuple(part.shape for part in tensors) != self.shapes:
            raise ValueError(other_shapes(self.shapes, tensors))
        parted = zip(tensors, self._widths, self.channels_last, strict=True)
        rows = [
            (part.movedim(1, -1) if last else _real(part)).reshape(self.batch, width)
            for part, width, last in parted
        ]
        flat = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
        return flat.to(self.dtype)

    def restore(self, flat: Tensor) -> State:
        """(B, D) -> a state of the original shapes and dtypes; views where the dtype stays."""
        if self._plain:
            return flat.view(self.shapes[0]).to(self.dtypes[0])
        columns = flat.split(self._widths, dim=1)
        parted = zip(columns, self.shapes, self.dtypes, self.channels_last, strict=True)
        restored = tuple(_part(*one) for one in parted)
        return restored if self.is_tuple else restored[0]

    @cached_property
    def _plain(self) -> bool:
        """One real tensor in the usual order, for which there is a short way."""
        return not (self.is_tuple or self.dtypes[0].is_complex or self.channels_last[0])

    @cached_property
    def _matrix(self) -> tuple[int, int]:
        return self.batch, sum(self._widths)

    @cached_property
    def _widths(self) -> list[int]:
        """Columns of each part."""
        pairs = zip(self.shapes, self.dtypes, strict=True)
        return [shape[1:].numel() * (2 if dtype.is_complex else 1) for shape, dtype in pairs]


def other_shapes(expected: tuple[torch.Size, ...], got: tuple[Tensor, ...]) -> str:
    """The message for an f that returns other shapes than it takes."""
    want = ", ".join(str(tuple(shape)) for shape in expected)
    have = ", ".join(str(tuple(part.shape)) for part in got)
    return f"f must return a state of the shape that it takes: {want}, got {have}"


def _real(part: Tensor) -> Tensor:
    return torch.view_as_real(part.resolve_conj()) if part.is_complex() else part


def _part(columns: Tensor, shape: torch.Size, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """The part of a state that some columns (B, width) stand for."""
    if dtype.is_complex:
        return _complex(columns, shape, dtype)
    if channels_last:
        return columns.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1).to(dtype)
    return columns.view(shape).to(dtype)


def _is_channels_last(part: Tensor) -> bool:
    """Whether channels come last in the memory of each sample (C, H, W) or (C, D, H, W)."""
    if part.ndim < 4 or part.is_complex() or part.shape[1] == 1:
        return False
    moved, width = part.movedim(1, -1), 1
    for size, stride in zip(reversed(moved.shape[1:]), reversed(moved.stride()[1:]), strict=True):
        if size > 1 and stride != width:
            return False
        width *= size
    return width > part.shape[1]


def _complex(columns: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    real, imaginary = columns.reshape(*shape, 2).unbind(-1)
    return torch.complex(real, imaginary).to(dtype)


def constant(state: State) -> State:
    """The same values, detached from any graph."""
    if isinstance(state, Tensor):
        return state.detach()
    return tuple(part.detach() for part in state)


def finite_or_kept(state: State, kept: State) -> State:
    """`state`, with the values of `kept` in the samples that are not wholly finite.

    Found by a sum, which is not finite if one of its terms is not; costs no host-device sync.
    """
    sums = [_row_sums(part.detach()) for part in parts(state)]
    finite = torch.isfinite(sum(sums[1:], sums[0]))
    values = tuple(
        torch.where(finite.view(-1, *(1 for _ in a.shape[1:])), a, b.detach().to(a.dtype))
        for a, b in zip(parts(state), parts(kept), strict=True)
    )
    return values[0] if isinstance(state, Tensor) else values


def _row_sums(part: Tensor) -> Tensor:
    rows = part.reshape(part.shape[0], part.shape[1:].numel())
    return rows.sum(dim=1, dtype=torch.promote_types(part.dtype, torch.float32))


def damped(z: State, fz: State, damping: float) -> State:
    """(1 - damping) z + damping f(z), part by part."""
    if damping == 1.0:
        return fz
    pairs = zip(parts(z), parts(fz), strict=True)
    mixed = tuple(torch.lerp(a, b.to(a.dtype), damping) for a, b in pairs)
    return mixed if isinstance(z, tuple) else mixed[0]
