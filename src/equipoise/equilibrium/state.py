"""A state is a tensor, or a tuple of tensors, whose first dimension is the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

State = Tensor | tuple[Tensor, ...]
Function = Callable[..., State]
"""f(z, *inputs) -> State: the map whose fixed point is sought."""


def parts(state: State) -> tuple[Tensor, ...]:
    """The tensors of a state, one or several."""
    return (state,) if isinstance(state, Tensor) else tuple(state)


def detached(state: State) -> State:
    """The same values as leaves of a new graph, which require gradients."""
    if isinstance(state, Tensor):
        return state.detach().requires_grad_()
    return tuple(part.detach().requires_grad_() for part in state)


@dataclass(frozen=True)
class Layout:
    """How a state is laid out as one matrix (B, D), a row per sample; solvers see nothing else."""

    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]
    dtype: torch.dtype
    device: torch.device
    is_tuple: bool

    @classmethod
    def of(cls, state: State, dtype: torch.dtype | None = None) -> Layout:
        """The layout of `state`; its rows are kept in `dtype`, by default float32 or wider.

        Raises ValueError where the parts do not share the batch dimension.
        """
        tensors = parts(state)
        if not tensors or any(part.ndim == 0 for part in tensors):
            raise ValueError("a state needs at least one tensor with a batch dimension")
        if len({part.shape[0] for part in tensors}) > 1:
            sizes = ", ".join(str(tuple(part.shape)) for part in tensors)
            raise ValueError(f"all parts of a state must share the batch dimension, got {sizes}")
        if dtype is None:
            dtype = torch.float32
            for part in tensors:
                dtype = torch.promote_types(dtype, part.dtype)
        shapes = tuple(part.shape for part in tensors)
        dtypes = tuple(part.dtype for part in tensors)
        return cls(shapes, dtypes, dtype, tensors[0].device, not isinstance(state, Tensor))

    @property
    def batch(self) -> int:
        """The number of samples B."""
        return self.shapes[0][0]

    def with_batch(self, batch: int) -> Layout:
        """The same for another number of samples."""
        return replace(self, shapes=tuple(torch.Size((batch, *shape[1:])) for shape in self.shapes))

    def flatten(self, state: State) -> Tensor:
        """State -> (B, D), in the layout's dtype; no copy for one contiguous tensor of that dtype.

        Raises ValueError where the state is not of this layout, say an f that changes the shape.
        """
        tensors = parts(state)
        if tuple(part.shape for part in tensors) != self.shapes:
            got = ", ".join(str(tuple(part.shape)) for part in tensors)
            want = ", ".join(str(tuple(shape)) for shape in self.shapes)
            raise ValueError(f"f must return a state of the shape that it takes: {want}, got {got}")
        rows = [part.reshape(self.batch, part.shape[1:].numel()) for part in tensors]
        flat = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
        return flat.to(self.dtype)

    def restore(self, flat: Tensor) -> State:
        """(B, D) -> a state of the original shapes and dtypes; views where the dtype stays."""
        widths = [shape[1:].numel() for shape in self.shapes]
        columns = zip(flat.split(widths, dim=1), self.shapes, self.dtypes, strict=True)
        restored = tuple(part.view(shape).to(dtype) for part, shape, dtype in columns)
        return restored if self.is_tuple else restored[0]
