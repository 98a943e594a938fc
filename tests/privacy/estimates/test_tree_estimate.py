"""The two passes against dense weighted least squares, and adjoints against inner products."""

from __future__ import annotations

import numpy as np
import pytest

from equipoise.privacy import Tree
from equipoise.privacy.estimates.distributions import norm_sub, norm_sub_families, norm_sub_once
from equipoise.privacy.estimates.tree_estimate import (
    BottomUp,
    LinearInference,
    Unprocessed,
    least_squares,
    without_negatives,
)


def uneven_tree(domain: tuple[int, ...], generator: np.random.Generator) -> Tree:
    tree = Tree(domain, 2)
    for level in range(tree.levels):
        deepest = np.flatnonzero(tree.depth == level)
        keep = generator.random(len(deepest)) < 0.95
        tree.split(deepest[keep | (level < 2)])
    return tree


def dense_solution(tree: Tree, measured: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Leaves x minimise sum (measured - A x)^2 / variance under sum x = 1, by elimination."""
    inside = (tree.low[:, None] <= tree.low[tree.leaves]) & (
        tree.high[tree.leaves] <= tree.high[:, None]
    )
    matrix = inside.all(axis=2).astype(float)
    seen = np.isfinite(variance) & (np.arange(len(tree)) > 0)
    scale = 1 / np.sqrt(variance[seen])
    last = matrix[:, -1:]
    reduced, offset = matrix[:, :-1] - last, last[:, 0]
    free, *_ = np.linalg.lstsq(
        reduced[seen] * scale[:, None], (measured - offset)[seen] * scale, rcond=None
    )
    return matrix @ np.append(free, 1 - free.sum())


@pytest.mark.parametrize("domain", [(128,), (100,), (16, 16), (9, 20)])
def test_two_passes_are_weighted_least_squares(
    domain: tuple[int, ...], generator: np.random.Generator
) -> None:
    tree = uneven_tree(domain, generator)
    measured = generator.normal(size=len(tree))
    measured[0] = 1.0
    variance = generator.choice([0.3, 1.0, 2.5], len(tree))
    unmeasured = generator.random(len(tree)) < 0.15
    variance[unmeasured & tree.has_children] = np.inf
    values = least_squares(tree, variance).solve(measured)
    assert len(tree) > 40
    np.testing.assert_allclose(values, dense_solution(tree, measured, variance), atol=1e-10)
    for family in tree.families:
        sums = np.add.reduceat(values[family.children], family.starts)
        np.testing.assert_allclose(sums, values[family.parents], atol=1e-12)


@pytest.mark.parametrize("kind", ["bottom_up", "least_squares", "unprocessed"])
def test_adjoints_are_the_transposed_maps(kind: str, generator: np.random.Generator) -> None:
    tree = uneven_tree((64,), generator)
    inference: LinearInference
    if kind == "bottom_up":
        own = np.where(tree.has_children, generator.random(len(tree)), 1.0)
        inference = BottomUp(tree, own)
    elif kind == "unprocessed":
        inference = Unprocessed()
    else:
        inference = least_squares(tree, generator.random(len(tree)) + 0.1)
    weights = generator.normal(size=(3, len(tree)))
    first, second = generator.normal(size=(2, len(tree)))
    difference = inference.solve(first) - inference.solve(second)
    expected = inference.adjoint(weights) @ (first - second)
    np.testing.assert_allclose(weights @ difference, expected, rtol=1e-9, atol=1e-9)


def test_removing_negatives_keeps_every_parent_the_sum_of_its_children(
    generator: np.random.Generator,
) -> None:
    tree = uneven_tree((64,), generator)
    measured = generator.normal(0.05, 0.3, len(tree))
    measured[0] = 1.0
    raw = least_squares(tree, np.ones(len(tree))).solve(measured)
    values = without_negatives(tree, raw)
    assert raw.min() < 0 <= values.min()
    assert values[0] == 1.0
    for family in tree.families:
        sums = np.add.reduceat(values[family.children], family.starts)
        np.testing.assert_allclose(sums, values[family.parents], atol=1e-12)


def test_norm_sub_is_the_projection_on_the_simplex(generator: np.random.Generator) -> None:
    vector = generator.normal(size=30)
    result = norm_sub(vector)
    positive = result > 0
    shift = (vector - result)[positive]
    assert result.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(shift, shift[0])
    assert (vector[~positive] <= shift[0] + 1e-12).all()


@pytest.mark.parametrize("vector", [[-3.0, -2.0], [0.0, 0.0, 0.0], [5.0, -9.0, 0.2]])
def test_norm_sub_of_anything_is_a_distribution(vector: list[float]) -> None:
    result = norm_sub(np.array(vector))
    assert result.min() >= 0
    assert result.sum() == pytest.approx(1.0)
    assert norm_sub_once(np.array(vector)).sum() == pytest.approx(1.0)


def test_families_are_projected_one_by_one(generator: np.random.Generator) -> None:
    vector, starts, totals = generator.normal(size=9), np.array([0, 1, 5]), np.array([0, 0.3, 2.0])
    expected = [
        norm_sub(part, total)
        for part, total in zip(np.split(vector, starts[1:]), totals, strict=True)
    ]
    np.testing.assert_allclose(
        norm_sub_families(vector, starts, totals), np.concatenate(expected), atol=1e-15
    )
