"""Range queries under local differential privacy: AHEAD, its baselines, aggregator and client.

Independent of the rest of the package, and of torch: numpy, and for the client nothing at all.
"""

from equipoise.privacy.aggregator import Aggregator
from equipoise.privacy.client import Client
from equipoise.privacy.describe import describe
from equipoise.privacy.errors import AlreadySpent, MergeError, PrivacyError, RoundError
from equipoise.privacy.ledger import Ledger
from equipoise.privacy.mechanisms import (
    Ahead,
    AheadPairs,
    DiscreteHaarTransform,
    Flat,
    HierarchicalHistogram,
    HierarchicalIntervals,
    HybridDimensionalGrids,
    SmoothedSquareWave,
    Uniform,
    split_threshold,
)
from equipoise.privacy.question import Question
from equipoise.privacy.range_estimate import Answer, RangeEstimate
from equipoise.privacy.refusal import Receipt, Refusal
from equipoise.privacy.round import RoundDescription
from equipoise.privacy.simulation import (
    add_simulated_reports,
    assign_rounds,
    simulate_counts,
    simulate_histogram,
    simulate_reports,
)
from equipoise.privacy.survey import Mechanism, Survey, Tally
from equipoise.privacy.tree import Tree
from equipoise.privacy.tree_estimate import TreeEstimate
from equipoise.privacy.values import check_ranges, check_values

__all__ = [
    "Aggregator",
    "Ahead",
    "AheadPairs",
    "AlreadySpent",
    "Answer",
    "Client",
    "DiscreteHaarTransform",
    "Flat",
    "HierarchicalHistogram",
    "HierarchicalIntervals",
    "HybridDimensionalGrids",
    "Ledger",
    "Mechanism",
    "MergeError",
    "PrivacyError",
    "Question",
    "RangeEstimate",
    "Receipt",
    "Refusal",
    "RoundDescription",
    "RoundError",
    "SmoothedSquareWave",
    "Survey",
    "Tally",
    "Tree",
    "TreeEstimate",
    "Uniform",
    "add_simulated_reports",
    "assign_rounds",
    "check_ranges",
    "check_values",
    "describe",
    "simulate_counts",
    "simulate_histogram",
    "simulate_reports",
    "split_threshold",
]
