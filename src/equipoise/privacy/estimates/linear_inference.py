"""Linear estimates on a tree: values from measurements, and the way back for standard errors.

A value is a linear function of the measurements; `adjoint` maps weights on values to the weights
that they put on measurements, from which the variance of any range follows.
Arrays end in an axis of nodes; what stands before it (queries) is carried along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from equipoise.privacy.estimates.tree import Families, Tree

Floats = NDArray[np.float64]


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
    variance, by which what is missing to the parent's value is handed out.
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
        """The two passes backwards."""
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
    """w(n) = V / (V + variance(n)), V the children's summed variance; and the variance after.

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
