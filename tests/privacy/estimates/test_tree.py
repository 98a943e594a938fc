"""Trees: every level is a partition, whatever the domain, and nothing is cut off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.privacy import PrivacyError, Tree
from equipoise.privacy.estimates.tree import levels_of
from equipoise.privacy.estimates.tree_estimate import node_weights

DOMAINS = st.lists(st.integers(2, 40), min_size=1, max_size=2).map(tuple)


def covered(tree: Tree, nodes: np.ndarray) -> np.ndarray:
    """How often each value of the domain lies in the boxes."""
    times = np.zeros(tree.domain, dtype=int)
    for low, high in zip(tree.low[nodes], tree.high[nodes], strict=True):
        times[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] += 1
    return times


@given(DOMAINS, st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_every_level_of_a_full_tree_partitions_the_domain(
    domain: tuple[int, ...], branching: int
) -> None:
    tree = Tree.full(domain, branching)
    for level in range(tree.levels + 1):
        assert (covered(tree, tree.partition(level)) == 1).all()
    assert (tree.volumes()[tree.leaves] == 1).all()
    assert (tree.high <= np.array(domain)).all()


@given(DOMAINS, st.integers(2, 4), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_a_tree_that_grows_unevenly_partitions_the_domain(
    domain: tuple[int, ...], branching: int, random: object
) -> None:
    tree = Tree(domain, branching)
    generator = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    for level in range(tree.levels):
        deepest = np.flatnonzero(tree.depth == level)
        tree.split(deepest[generator.random(len(deepest)) < 0.7])
        assert (covered(tree, tree.leaves) == 1).all()
    for family in tree.families:
        sizes = np.add.reduceat(tree.volumes()[family.children], family.starts)
        np.testing.assert_array_equal(sizes, tree.volumes()[family.parents])
        np.testing.assert_array_equal(
            tree.parent[family.children], family.parents[family.owner]
        )  # fmt: skip


@pytest.mark.parametrize(
    ("size", "branching", "levels"), [(243, 3, 5), (1024, 2, 10), (1025, 2, 11), (74, 2, 7)]
)
def test_the_number_of_levels_is_exact(size: int, branching: int, levels: int) -> None:
    assert levels_of(size, branching) == levels


@given(st.integers(2, 60), st.integers(2, 4), st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_the_highest_nodes_add_up_to_the_range(size: int, branching: int, a: int, b: int) -> None:
    low, high = sorted((a % (size + 1), b % (size + 1)))
    tree = Tree.full((size,), branching)
    weights = node_weights(tree, np.array([[[low, high]]]))[0]
    assert set(weights) <= {0.0, 1.0}
    assert weights @ tree.volumes() == high - low
    assert weights.sum() <= 2 * (branching - 1) * tree.levels + 1


def test_one_branch_is_refused() -> None:
    with pytest.raises(PrivacyError, match="at least two branches"):
        Tree((8,), 1)
