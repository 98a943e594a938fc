"""Where the solves of a layer start while a callback sets their starts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from equipoise.equilibrium import Equilibrium
from equipoise.equilibrium.randomness import recomputing
from equipoise.equilibrium.state import State, as_state
from equipoise.errors import UserError


class LayerStart(ABC):
    """Sets the starts of one layer's solves during one batch, and receives their results.

    handed: the starts of the batch's solves so far, in order. before: the layer's own start, which
    `leave` restores. `told_by` names the callback in messages.
    """

    told_by: str

    def __init__(self, layer: Equilibrium) -> None:
        self.layer = layer
        self.handed: list[State] = []
        self.before = layer.start
        layer.start = self
        self.hook = layer.register_forward_hook(self._after)

    @abstractmethod
    def start(self, z0: State) -> State:
        """The start of the layer's next solve, which would otherwise start at z0."""

    @abstractmethod
    def note(self, z: State) -> None:
        """Keep the result of a solve."""

    def __call__(self, z0: State) -> State:
        """The start of the next solve, or of the one that activation checkpointing repeats."""
        if recomputing():
            return self._handed_again()
        state = self.start(z0)
        self.handed.append(state)
        return state

    def leave(self) -> None:
        """Restore the layer's own start."""
        self.hook.remove()
        self.layer.start = self.before

    def _after(self, layer: nn.Module, arguments: Any, output: Any) -> None:
        """Pass the result of a solve to `note`, unless the solve is not part of the step."""
        if not recomputing() and self.layer.start is self:
            self.note(as_state(output))

    def _handed_again(self) -> State:
        if len(self.handed) != 1:
            raise UserError(
                f"callbacks={self.told_by} cannot repeat several solves of one layer inside "
                "activation checkpointing: leave it out"
            )
        return self.handed[0]
