"""Range queries answered from the nodes of a tree, and how a tree's measurements become values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.estimates.distributions import norm_sub_families
from equipoise.privacy.estimates.linear_inference import (
    BottomUp,
    LinearInference,
    Unprocessed,
    family_sums,
    inverse_variance_weights,
    least_squares,
)
from equipoise.privacy.estimates.range_estimate import RangeEstimate
from equipoise.privacy.estimates.tree import Measurements, Tree

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_ENTRIES_AT_ONCE = 1 << 23
FEWEST_REPORTS = 5


@dataclass
class TreeEstimate(RangeEstimate):
    """The sum of the highest nodes inside the box, and a uniform share of the leaves that it cuts.

    values: (nodes,) final frequencies; inference: how they came from the measurements (its adjoint
    gives standard errors; a removal of negative values afterwards is not part of it).
    """

    tree: Tree
    values: Floats
    inference: LinearInference
    measurements: Measurements

    def __post_init__(self) -> None:
        self.domain = self.tree.domain

    def fractions(self, boxes: Integers) -> Floats:
        """Weights of the nodes times their values."""
        return self._in_parts(boxes, lambda weights: weights @ self.values)

    def deviations(self, boxes: Integers) -> Floats | None:
        """sqrt(sum over measurements of squared weight times variance + misfit^2).

        misfit: sum over the cut leaves of f sqrt(c (1 - c)), the standard deviation of a leaf of
        frequency f, of which c is covered, whose people all have one value that is anywhere in it.
        The leaves of one range err together, so that their misfits add up. None where a round had
        fewer than 5 reports, which are too few for any variance to be estimated from them.
        """
        if self.measurements.fewest < FEWEST_REPORTS:
            return None
        variance, mass = self.measurements.variance(self.values), np.maximum(self.values, 0.0)

        def deviation(weights: Floats) -> Floats:
            noise = self.inference.adjoint(weights) ** 2 @ variance
            misfit = np.sqrt(weights * (1 - weights)) @ mass  # weights are 0 or 1 but at cut leaves
            return np.sqrt(noise + misfit**2)

        return self._in_parts(boxes, deviation)

    def _in_parts(self, boxes: Integers, function: Callable[[Floats], Floats]) -> Floats:
        """function of the weights, a bounded number of queries at a time."""
        rows = max(1, _ENTRIES_AT_ONCE // len(self.tree))
        parts = [
            function(node_weights(self.tree, boxes[i : i + rows]))
            for i in range(0, len(boxes), rows)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)


def node_weights(tree: Tree, boxes: Integers) -> Floats:
    """(queries, nodes): 1 for the highest nodes inside, the covered part for cut leaves."""
    low = np.maximum(boxes[:, None, :, 0], tree.low)
    high = np.minimum(boxes[:, None, :, 1], tree.high)
    covered = np.maximum(high - low, 0).prod(axis=2) / tree.volumes()
    inside = covered == 1.0
    highest = inside.copy()
    highest[:, 1:] &= ~inside[:, tree.parent[1:]]
    cut_leaves = ~inside & ~tree.has_children
    return highest + np.where(cut_leaves, covered, 0.0)


def unprocessed(tree: Tree, measurements: Measurements) -> TreeEstimate:
    """The measurements as they are: unbiased, inconsistent."""
    return TreeEstimate(tree, measurements.mean, Unprocessed(), measurements)


def published_bottom_up(tree: Tree, measurements: Measurements) -> TreeEstimate:
    """AHEAD's weighted average of a node and its children, variances 1 / rounds, no way down.

    Source: Du et al. 2021, section 4.2: w(n) = Var_children / (Var_children + Var_n).
    """
    weight, _ = inverse_variance_weights(tree, _reciprocal(measurements.weight))
    return _by_bottom_up(tree, weight, measurements)


def released_bottom_up(tree: Tree, measurements: Measurements) -> TreeEstimate:
    """The weights of AHEAD's released one-dimensional program, for comparison with its curves.

    With v a node's and V its children's variance, in units of one round's: w = (v + V) /
    (1 + v + V), which is taken for the node's variance from then on; the root counts as measured.
    """
    precision = measurements.weight.copy()
    precision[0] = 1.0
    weight, variance = np.ones(len(tree)), _reciprocal(precision)
    for family in reversed(tree.families):
        total = variance[family.parents] + family_sums(variance, family)
        weight[family.parents] = variance[family.parents] = total / (1 + total)
    return _by_bottom_up(tree, weight, measurements)


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


def _by_bottom_up(tree: Tree, weight: Floats, measurements: Measurements) -> TreeEstimate:
    inference = BottomUp(tree, weight)
    return TreeEstimate(tree, inference.solve(measurements.mean), inference, measurements)


def _reciprocal(precision: Floats) -> Floats:
    """1 / precision, infinite where nothing was measured."""
    return np.divide(1.0, precision, out=np.full_like(precision, np.inf), where=precision > 0)
