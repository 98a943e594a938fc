"""The iterates of chosen evaluations."""

from __future__ import annotations

from torch import Tensor


class Trajectory:
    """Keeps the iterate of each of the chosen evaluations, counted from 1.

    A solver whose step takes several evaluations keeps the first iterate at or after the chosen
    one. Where the solve ends earlier, its result stands for the rest.
    """

    def __init__(self, chosen: tuple[int, ...]) -> None:
        self.pending = list(chosen)
        self.states: list[Tensor] = []

    def due(self, evaluation: int) -> bool:
        """Whether the iterate of this evaluation is to be kept."""
        return bool(self.pending) and self.pending[0] <= evaluation

    def keep(self, evaluation: int, z: Tensor) -> None:
        """Note the iterate z (B, D) for every choice up to this evaluation."""
        while self.due(evaluation):
            self.pending.pop(0)
            self.states.append(z)

    def finish(self, result: Tensor) -> list[Tensor]:
        """As many states as were chosen."""
        self.states.extend(result for _ in self.pending)
        return self.states
