"""What sums up over many steps, and goes on from a checkpoint as if nothing had been between."""

from __future__ import annotations

from typing import Any


class Accumulator:
    """Keeps all that it has summed up in plain attributes: numbers, tensors, lists of them.

    The state is taken as it stands, also what still waits to be summed: another order of the same
    sums would give other last bits.
    """

    def state_dict(self) -> dict[str, Any]:
        """The attributes as plain values, those of the accumulators among them likewise."""
        return {name: _plain(value) for name, value in vars(self).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for name, value in state.items():
            own = getattr(self, name)
            if isinstance(own, Accumulator):
                own.load_state_dict(value)
            else:
                setattr(self, name, value)


def _plain(value: Any) -> Any:
    if isinstance(value, Accumulator):
        return value.state_dict()
    return list(value) if isinstance(value, list) else value
