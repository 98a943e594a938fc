"""Range queries under local differential privacy: AHEAD, its baselines, aggregator and client.

Independent of the rest of the package, and of torch: numpy, and for the client nothing at all.
"""

from equipoise.privacy.client.client import Client
from equipoise.privacy.client.errors import AlreadySpent, MergeError, PrivacyError, RoundError
from equipoise.privacy.client.ledger import Ledger
from equipoise.privacy.client.round import RoundDescription
from equipoise.privacy.collection.aggregator import Aggregator, describe
from equipoise.privacy.collection.open_round import Receipt, Refusal
from equipoise.privacy.collection.simulation import (
    add_simulated_reports,
    assign_rounds,
    simulate_counts,
    simulate_histogram,
    simulate_reports,
)
from equipoise.privacy.estimates.range_estimate import Answer, RangeEstimate
from equipoise.privacy.estimates.tree import Tree
from equipoise.privacy.estimates.tree_estimate import TreeEstimate
from equipoise.privacy.estimates.values import check_ranges, check_values
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
from equipoise.privacy.mechanisms.survey import Mechanism, Question, Survey, Tally

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
