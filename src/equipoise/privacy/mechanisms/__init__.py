"""The methods: AHEAD and its baselines."""

from equipoise.privacy.mechanisms.ahead import Ahead, AheadSurvey, split_threshold
from equipoise.privacy.mechanisms.ahead_pairs import AheadPairs
from equipoise.privacy.mechanisms.dht import DiscreteHaarTransform
from equipoise.privacy.mechanisms.fixed_trees import (
    Flat,
    HierarchicalHistogram,
    HierarchicalIntervals,
)
from equipoise.privacy.mechanisms.hdg import HybridDimensionalGrids
from equipoise.privacy.mechanisms.smoothed_square_wave import SmoothedSquareWave
from equipoise.privacy.mechanisms.uniform import Uniform

__all__ = [
    "Ahead",
    "AheadPairs",
    "AheadSurvey",
    "DiscreteHaarTransform",
    "Flat",
    "HierarchicalHistogram",
    "HierarchicalIntervals",
    "HybridDimensionalGrids",
    "SmoothedSquareWave",
    "Uniform",
    "split_threshold",
]
