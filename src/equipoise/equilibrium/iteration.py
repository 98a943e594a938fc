"""What a solver's method remembers during a solve, and how it proposes the next iterate."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from equipoise.equilibrium.low_rank import LowRankInverse


class Iteration(ABC):
    """One method's memory during one solve; everything in it is a matrix with a row per sample."""

    @abstractmethod
    def advance(self, z: Tensor, fz: Tensor, g: Tensor, frozen: Tensor | None) -> Tensor:
        """The next iterate from z, f(z) and g = f(z) - z, each (B, D).

        They belong to the solve: do not write into them; the next evaluation overwrites g. frozen
        (B,) bool marks the samples that have ended; None if none has. The values returned for these
        do not matter, but an inverse that the method offers must stay as it is for them.
        """

    def residual_buffer(self, default: Tensor) -> Tensor:
        """Where the solve is to write the next g (B, D); saves a copy for a method that keeps g."""
        return default

    @abstractmethod
    def keep_rows(self, rows: Tensor) -> None:
        """Remember only these rows (b,) of all that is kept: the other samples are not evaluated.

        Called after `advance`, before f is evaluated on its result.
        """

    def conclude(self, z: Tensor, g: Tensor) -> None:  # noqa: B027  few methods have a use for it
        """Take in the last evaluation of a solve that ended before its budget."""

    def inverse(self) -> LowRankInverse | None:
        """The estimate of (J_f - I)^-1 that the method has built, if it builds one."""
        return None
