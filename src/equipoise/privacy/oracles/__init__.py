"""Randomizers, and how an aggregator estimates frequencies from their reports."""

from __future__ import annotations

import math
from typing import Literal

from equipoise.privacy.oracles.generalized_randomized_response import (
    GeneralizedRandomizedResponse,
)
from equipoise.privacy.oracles.haar_hadamard import HaarHadamard
from equipoise.privacy.oracles.optimized_unary_encoding import OptimizedUnaryEncoding
from equipoise.privacy.oracles.randomizer import FrequencyOracle, Randomizer
from equipoise.privacy.oracles.square_wave import SquareWave

__all__ = [
    "FrequencyOracle",
    "GeneralizedRandomizedResponse",
    "HaarHadamard",
    "OptimizedUnaryEncoding",
    "OracleChoice",
    "Randomizer",
    "SquareWave",
    "frequency_oracle",
]

OracleChoice = Literal["oue", "grr", "auto"]


def frequency_oracle(choice: OracleChoice, cells: int, epsilon: float) -> FrequencyOracle:
    """The named oracle; "auto" takes the one with lower variance: GRR where k < 3 e^eps + 2.

    Source: Wang et al. 2017 (USENIX Security), section 5.
    """
    few = cells < 3 * math.exp(epsilon) + 2
    if choice == "grr" or (choice == "auto" and few):
        return GeneralizedRandomizedResponse(cells, epsilon)
    return OptimizedUnaryEncoding(cells, epsilon)
