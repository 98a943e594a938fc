"""The latest equilibrium of each sample, from which its next solve may start."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from equipoise.equilibrium.state import Layout, State

Storage = Literal["float16", "bfloat16", "float32"]


class Start(NamedTuple):
    """Where solves start: the state, the same as a matrix (B, D), and which are known (B,)."""

    state: State
    flat: Tensor
    known: Tensor


class StateMemory:
    """One state for each of the samples 0, 1, ..., `capacity` - 1, the latest that was kept.

    A batch names its samples by `index` (B,), whole numbers of at least 0 on the state's device.
    Numbers of `capacity` and above are legal, and never kept. Nothing here waits for the device:
    one row more than there are samples takes what is not to be kept. The rows are stored in
    `storage`, None for the precision of the solve, on the device of the first state.

    While weights are trained all equilibria move, and half of that way is common to all samples. So
    what is stored is the distance of a state from `shift` (D,), which follows the way: it grows by
    how far, on average, the solves of a batch have moved from where they were started.
    """

    def __init__(self, like: State, capacity: int, storage: Storage | None = None) -> None:
        """Room for `capacity` states like the samples of `like`, none of them known."""
        self.layout = Layout.of(like)
        self.capacity = capacity
        self.dtype = getattr(torch, storage) if storage else self.layout.dtype
        rows, width, device = capacity + 1, _width(self.layout), self.layout.device
        self.rows = torch.empty(rows, width, dtype=self.dtype, device=device)
        self.known = torch.zeros(rows, dtype=torch.bool, device=device)
        self.shift = torch.zeros(width, dtype=self.layout.dtype, device=device)

    @staticmethod
    def bytes_of_a_sample(like: State, storage: Storage | None = None) -> int:
        """What one sample of such a state takes."""
        layout = Layout.of(like)
        dtype = getattr(torch, storage) if storage else layout.dtype
        return int(_width(layout) * dtype.itemsize)

    def takes(self, state: State) -> bool:
        """Whether the samples of a state have the shapes and dtypes of those kept."""
        layout = Layout.of(state)
        same = layout.with_batch(1).shapes == self.layout.with_batch(1).shapes
        return same and layout.dtypes == self.layout.dtypes

    @torch.no_grad()
    def start(self, z0: State, index: Tensor) -> Start:
        """z0, with the state that is expected of every sample which is known."""
        layout, place = Layout.of(z0), index.clamp(max=self.capacity)
        known = self.known[place]
        rows = self.rows[place].to(layout.dtype).add_(self.shift)
        flat = torch.where(known.unsqueeze(1), rows, layout.flatten(z0))
        return Start(layout.restore(flat), flat, known)

    @torch.no_grad()
    def keep(self, state: State, index: Tensor, usable: Tensor, start: Start) -> None:
        """Keep what the solves from `start` have found; a sample not usable (B,) is forgotten."""
        flat = Layout.of(state).flatten(state)
        moved = (start.known & usable).to(flat.dtype)
        way = torch.linalg.vecdot(moved, (flat - start.flat).T)
        self.shift += way / moved.sum().clamp(min=1.0)
        rows = flat - self.shift
        if self.dtype == torch.float16:  # whose largest number a state may exceed
            rows = rows.clamp(-torch.finfo(self.dtype).max, torch.finfo(self.dtype).max)
        place = index.clamp(max=self.capacity)
        self.rows.index_copy_(0, place, rows.to(self.dtype))
        self.known.index_copy_(0, place, usable)
        self.known[self.capacity].fill_(False)

    def state_dict(self) -> dict[str, Any]:
        """The known samples, their rows and the shift, on the CPU; costs one host-device sync."""
        samples = self.known.nonzero().flatten()
        rows = self.rows[samples].cpu()
        return {"samples": samples.cpu(), "rows": rows, "shift": self.shift.cpu().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Know these samples and no others, as far as there is room for them.

        Raises ValueError where their states are of another width.
        """
        samples, rows = state["samples"], state["rows"]
        if rows.shape[1] != self.rows.shape[1]:
            raise ValueError(
                f"the kept states have {rows.shape[1]} numbers a sample, these {self.rows.shape[1]}"
            )
        fits = samples < self.capacity
        place = samples[fits].to(self.rows.device)
        self.known.fill_(False)
        self.known[place] = True
        self.rows[place] = rows[fits].to(self.rows)
        self.shift.copy_(state["shift"])


def _width(layout: Layout) -> int:
    """Columns of the matrix that a layout makes of a state."""
    pairs = zip(layout.shapes, layout.dtypes, strict=True)
    return sum(shape[1:].numel() * (2 if dtype.is_complex else 1) for shape, dtype in pairs)
