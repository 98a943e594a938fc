"""A fixed number of layers that share their weights, in place of an equilibrium."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from equipoise.equilibrium.state import Function, State


class Repetition(nn.Module):
    """z <- f(z, *inputs), `layers` times from z0, with ordinary backpropagation through all of it.

    The explicit counterpart of an equilibrium layer, called as one. checkpointed: keep one state a
    layer and evaluate it again in the backward pass, instead of keeping its graph.
    """

    def __init__(self, layers: int, checkpointed: bool = False) -> None:
        """Raises ValueError unless there is a layer."""
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        self.layers = layers
        self.checkpointed = checkpointed

    def forward(self, f: Function, z0: State, *inputs: Any) -> State:
        """Return the state of the last layer."""
        state = z0
        for _ in range(self.layers):
            if self.checkpointed and torch.is_grad_enabled():
                state = checkpoint(f, state, *inputs, use_reentrant=False)
            else:
                state = f(state, *inputs)
        return state
