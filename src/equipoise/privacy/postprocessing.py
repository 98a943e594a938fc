"""From a tree's measurements to its estimate: the ways that AHEAD and its baselines take."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.linear_inference import (
    BottomUp,
    Unprocessed,
    family_sums,
    inverse_variance_weights,
    least_squares,
)
from equipoise.privacy.measurements import Measurements
from equipoise.privacy.norm_sub import norm_sub_families
from equipoise.privacy.tree import Tree
from equipoise.privacy.tree_estimate import TreeEstimate

Floats = NDArray[np.float64]


def unprocessed(tree: Tree, measurements: Measurements) -> TreeEstimate:
    """The measurements as they are: unbiased, inconsistent."""
    return TreeEstimate(tree, measurements.mean, Unprocessed(), measurements)


def published_bottom_up(tree: Tree, measurements: Measurements) -> TreeEstimate:
    """AHEAD's weighted average of a node and its children, variances 1 / rounds, no way down.

    Source: Du et al. 2021, section 4.2: own(n) = Var_children / (Var_children + Var_n).
    """
    own, _ = inverse_variance_weights(tree, _reciprocal(measurements.weight))
    return _by_bottom_up(tree, own, measurements)


def released_bottom_up(tree: Tree, measurements: Measurements) -> TreeEstimate:
    """The weights of AHEAD's released one-dimensional program, for comparison with its curves.

    With v a node's and V its children's variance, in units of one round's: own = (v + V) /
    (1 + v + V), which is taken for the node's variance from then on; the root counts as measured.
    """
    weight = measurements.weight.copy()
    weight[0] = 1.0
    own, variance = np.ones(len(tree)), _reciprocal(weight)
    for family in reversed(tree.families):
        total = variance[family.parents] + family_sums(variance, family)
        own[family.parents] = variance[family.parents] = total / (1 + total)
    return _by_bottom_up(tree, own, measurements)


def consistent_non_negative(tree: Tree, measurements: Measurements) -> TreeEstimate:
    """Exact weighted least squares on the tree, then Norm-Sub in each family from the root down.

    Negative values are removed last, so that no bias enters the averages; the result is consistent.
    """
    inference = least_squares(tree, measurements.known_noise())
    values = without_negatives(tree, inference.solve(measurements.mean))
    return TreeEstimate(tree, values, inference, measurements)


def without_negatives(tree: Tree, values: Floats) -> Floats:
    """Each family's nearest values that are not negative and sum to the parent's new value."""
    result = values.copy()
    for family in tree.families:
        result[family.children] = norm_sub_families(
            result[family.children], family.starts, result[family.parents]
        )
    return result


def _by_bottom_up(tree: Tree, own: Floats, measurements: Measurements) -> TreeEstimate:
    inference = BottomUp(tree, own)
    return TreeEstimate(tree, inference.solve(measurements.mean), inference, measurements)


def _reciprocal(weight: Floats) -> Floats:
    """1 / weight, infinite where nothing was measured."""
    return np.divide(1.0, weight, out=np.full_like(weight, np.inf), where=weight > 0)
