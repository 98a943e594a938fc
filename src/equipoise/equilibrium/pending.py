"""What a forward in training leaves for the loss, and no longer than it is of use."""

from __future__ import annotations

import weakref

from torch import Tensor

from equipoise.equilibrium.state import State, parts


class Pending:
    """Penalties and states with their graphs, until they are taken or the next forward comes.

    A penalty stays as long as the graph of its forward's state does, so that a step of several
    forwards finds all of them, and goes with the next forward once that graph is gone. Copies of a
    layer, by copy or pickle, start with nothing.
    """

    def __init__(self) -> None:
        self.states: tuple[State, ...] = ()
        self._penalties: list[tuple[weakref.ref[_Life], Tensor]] = []

    def __reduce__(self) -> tuple[type[Pending], tuple[()]]:
        return Pending, ()

    @property
    def penalty(self) -> Tensor | None:
        """The sum of the penalties."""
        total: Tensor | None = None
        for _, penalty in self._penalties:
            total = penalty if total is None else total + penalty
        return total

    def add(self, penalty: Tensor, state: State) -> None:
        """Keep a penalty for as long as the graph that leads to `state`."""
        life = _Life()
        first = next((part for part in parts(state) if part.requires_grad), None)
        if first is not None:
            first.register_hook(life)
        self._penalties.append((weakref.ref(life), penalty))

    def drop_what_is_over(self) -> None:
        """A forward begins: let go of the latest states, and of penalties of discarded forwards."""
        self.states = ()
        self._penalties = [entry for entry in self._penalties if entry[0]() is not None]

    def pop_penalty(self) -> Tensor | None:
        """The sum of the penalties, which are then gone."""
        penalty, self._penalties = self.penalty, []
        return penalty

    def pop_states(self) -> tuple[State, ...]:
        """The states, which are then gone."""
        states, self.states = self.states, ()
        return states


class _Life:
    """A hook that changes nothing, and lives as long as the graph it is on."""

    def __call__(self, gradient: Tensor) -> None:
        """Let the gradient pass."""
