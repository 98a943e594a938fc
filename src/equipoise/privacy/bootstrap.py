"""Standard errors of estimates that are not linear in the counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.range_estimate import RangeEstimate


@dataclass
class Bootstrap:
    """Repeats the estimation on resampled counts; the spread of its answers is the standard error.

    replicate: makes one estimate from a generator; runs when the first error is asked for.
    Source: Efron 1979, on the counts of each round.
    """

    replicate: Callable[[np.random.Generator], RangeEstimate]
    replicates: int = 24
    seed: int = 0

    @cached_property
    def estimates(self) -> list[RangeEstimate]:
        """The replicates; the same ones each time."""
        streams = np.random.SeedSequence(self.seed).spawn(self.replicates)
        return [self.replicate(np.random.default_rng(stream)) for stream in streams]

    def deviations(self, boxes: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) standard deviations of the replicates' answers."""
        answers = np.stack([estimate.fractions(boxes) for estimate in self.estimates])
        return answers.std(axis=0, ddof=1)
