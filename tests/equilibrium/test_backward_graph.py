"""Finding the leaves of a graph."""

from __future__ import annotations

import torch

from equipoise.equilibrium.backward_graph import leaf_tensors


def test_all_leaves_and_nothing_behind_the_stop() -> None:
    a, b, c, behind = (torch.ones(2, requires_grad=True) for _ in range(4))
    constant = torch.ones(2)
    x = behind * 2
    found = leaf_tensors(((a * x).sin() + constant, b * (c + x)), (x,))
    assert {id(leaf) for leaf in found} == {id(a), id(b), id(c)}


def test_a_leaf_can_be_a_stop() -> None:
    a, x = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    assert [leaf is a for leaf in leaf_tensors(a * x, (x,))] == [True]


def test_a_leaf_that_is_also_behind_the_stop_is_found() -> None:
    a = torch.ones(2, requires_grad=True)
    x = a * 2
    assert [leaf is a for leaf in leaf_tensors(a * x, (x,))] == [True]


def test_each_leaf_once_and_none_without_a_graph() -> None:
    a = torch.ones(2, requires_grad=True)
    assert len(leaf_tensors(a * a + a, ())) == 1
    assert leaf_tensors(torch.ones(2), ()) == ()
