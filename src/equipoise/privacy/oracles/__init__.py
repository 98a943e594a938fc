"""Randomizers and what an aggregator learns from their reports."""

from equipoise.privacy.oracles.choice import OracleChoice, frequency_oracle
from equipoise.privacy.oracles.frequency_oracle import FrequencyOracle
from equipoise.privacy.oracles.generalized_randomized_response import (
    GeneralizedRandomizedResponse,
)
from equipoise.privacy.oracles.haar_hadamard import HaarHadamard
from equipoise.privacy.oracles.optimized_unary_encoding import OptimizedUnaryEncoding
from equipoise.privacy.oracles.randomizer import Randomizer
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
