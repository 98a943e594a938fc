"""Answers range queries from a tree's node values, which inference makes of measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from equipoise.privacy.estimates.distributions import norm_sub_families
from equipoise.privacy.estimates.range_estimate import RangeEstimate
from equipoise.privacy.estimates.tree import Families, Measurements, Tree
from equipoise.privacy.oracles.randomizer import Floats, Integers

_ENTRIES_AT_ONCE = 1 << 23
FEWEST_REPORTS = 5


class LinearInference(Protocol):
    """How node values come from node measurements."""

    def solve(self, measured: Floats) -> Floats:
        """Values (nodes,) from measurements (nodes,)."""
        ...

    def adjoint(self, weights: Floats) -> Floats:
        """Weights (..., nodes) on measurements from weights (..., nodes) on values."""
        ...


class Unprocessed:
    """Every value is its own measurement."""

    def solve(self, measured: Floats) -> Floats:
        """The measurements."""
        return measured

    def adjoint(self, weights: Floats) -> Floats:
        """The weights."""
        return weights


@dataclass
class BottomUp:
    """value(n) = w(n) measured(n) + (1 - w(n)) sum of the children's values; w is 1 at a leaf.

    Source: Du et al. 2021 (AHEAD), post-processing of section 4.2.
    """

    tree: Tree
    weight: Floats

    def solve(self, measured: Floats) -> Floats:
        """From the deepest level upwards."""
        values = measured.copy()
        for family in reversed(self.tree.families):
            weight = self.weight[family.parents]
            children = family_sums(values, family)
            values[family.parents] = weight * values[family.parents] + (1 - weight) * children
        return values

    def adjoint(self, weights: Floats) -> Floats:
        """From the root downwards."""
        result = weights.copy()
        for family in self.tree.families:
            passed = (1 - self.weight[family.parents]) * result[..., family.parents]
            result[..., family.children] += passed[..., family.owner]
            result[..., family.parents] *= self.weight[family.parents]
        return result


@dataclass
class LeastSquares:
    """Weighted least squares under parent = sum of children and root = 1, in two passes.

    bottom_up: best estimates from each node's own subtree; share: each child's part of its family's
    variance, in proportion to which the difference to the parent's value is distributed.
    Source: Hay et al. 2010 (PVLDB 3), Theorem 3, for unequal variances.
    """

    bottom_up: BottomUp
    share: Floats

    def solve(self, measured: Floats) -> Floats:
        """Consistent values: each parent is the sum of its children."""
        values = self.bottom_up.solve(measured)
        for family in self.bottom_up.tree.families:
            missing = values[family.parents] - family_sums(values, family)
            values[family.children] += self.share[family.children] * missing[family.owner]
        return values

    def adjoint(self, weights: Floats) -> Floats:
        """The adjoint: the two passes in reverse."""
        result = weights.copy()
        for family in reversed(self.bottom_up.tree.families):
            passed = family_sums(self.share * result, family)
            result[..., family.children] -= passed[..., family.owner]
            result[..., family.parents] += passed
        return self.bottom_up.adjoint(result)


def least_squares(tree: Tree, variance: Floats) -> LeastSquares:
    """The best linear unbiased estimate for independent measurements of the given variances.

    variance: (nodes,), infinite where a node was not measured; the root is known to be 1.
    """
    weight, after = inverse_variance_weights(tree, variance)
    share = np.zeros(len(tree))
    for family in tree.families:
        total = family_sums(after, family)
        share[family.children] = after[family.children] / total[family.owner]
    return LeastSquares(BottomUp(tree, weight), share)


def inverse_variance_weights(tree: Tree, variance: Floats) -> tuple[Floats, Floats]:
    """w(n) = V / (V + variance(n)), V the children's summed variance; and the variances after it.

    The root, known exactly, keeps its value.
    """
    weight, after = np.ones(len(tree)), variance.copy()
    after[0] = 0.0
    for family in reversed(tree.families):
        children = family_sums(after, family)
        precision = 1 / after[family.parents] if family.parents[0] else np.array([np.inf])
        weight[family.parents] = 1 - 1 / (1 + children * precision)
        after[family.parents] = 1 / (precision + 1 / children)
    return weight, after


def family_sums(values: Floats, family: Families) -> Floats:
    """(..., parents) sums over each family's children."""
    return np.add.reduceat(values[..., family.children], family.starts, axis=-1)


@dataclass
class TreeEstimate(RangeEstimate):
    """The sum of the highest nodes inside the box, plus a uniform share of the leaves that it cuts.

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

        misfit: sum over the cut leaves of f sqrt(c (1 - c)), the standard deviation of a leaf with
        frequency f and covered share c if all its people have one value, anywhere in the leaf.
        The leaves of one range err together, so their misfits add up. None where a round had
        fewer than 5 reports, too few to estimate any variance from.
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
        """Apply `function` to the weights, for a bounded number of queries at a time."""
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
    """AHEAD's weighted average of a node and its children, variances 1 / rounds, upwards only.

    Source: Du et al. 2021, section 4.2: w(n) = Var_children / (Var_children + Var_n).
    """
    weight, _ = inverse_variance_weights(tree, _reciprocal(measurements.weight))
    return _by_bottom_up(tree, weight, measurements)


def released_bottom_up(tree: Tree, measurements: Measurements) -> TreeEstimate:
    """The weights of AHEAD's released one-dimensional program, for comparison with its curves.

    With v a node's and V its children's variance, in units of one round's: w = (v + V) /
    (1 + v + V), which then serves as the node's variance; the root counts as measured.
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
    """Each family's nearest non-negative values that sum to the parent's new value."""
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
