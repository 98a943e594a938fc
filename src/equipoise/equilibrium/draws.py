"""Random numbers that follow from a seed and a count alone, also where a forward is repeated."""

from __future__ import annotations

import sys
from collections import OrderedDict

import torch
from torch.utils import checkpoint

SPREAD = 0x9E3779B97F4A7C15
"""Odd, near 2^64 over the golden ratio: successive counts become seeds that are far apart."""
REMEMBERED = 4096
"""Draws inside activation checkpoints of which the numbers are kept for the recomputation."""


class Draws:
    """A generator for each draw; the count of draws is all that a checkpoint of a run has to keep.

    Activation checkpointing evaluates a forward again in the backward pass, and what is drawn there
    has to be what was drawn before, whatever else was drawn since. It restores the global random
    state for that, from which a draw inside a checkpoint takes a mark by which the second one knows
    its number. Outside of checkpoints global generators are left alone.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.count = 0
        self._numbers: OrderedDict[int, int] = OrderedDict()

    def generator(self, device: torch.device | None = None) -> torch.Generator:
        """The generator of the next draw, or of an earlier one that is being repeated."""
        generator = torch.Generator("cpu" if device is None else device)
        return generator.manual_seed((self.seed + self._number() * SPREAD) % 2**63)

    def _number(self) -> int:
        if not _inside_checkpoint():
            return self._next()
        mark = _mark()
        if mark not in self._numbers:
            # A mark that is new in a recomputation: its checkpoint keeps no random state.
            self._numbers[mark] = max(self.count - 1, 0) if recomputing() else self._next()
            if len(self._numbers) > REMEMBERED:
                self._numbers.popitem(last=False)
        return self._numbers[mark]

    def _next(self) -> int:
        self.count += 1
        return self.count - 1


def recomputing() -> bool:
    """Whether this is inside a backward pass, where a checkpoint evaluates its forward again."""
    return torch._C._current_graph_task_id() != -1


def _mark() -> int:
    """A number of the global generator, which a checkpoint sets back before it recomputes."""
    return int(torch.randint(2**62, (), device="cpu"))


def _inside_checkpoint() -> bool:
    """Whether torch.utils.checkpoint is among the callers: it offers no way to ask."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == checkpoint.__file__:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
