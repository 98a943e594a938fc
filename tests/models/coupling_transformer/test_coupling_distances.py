"""Squared distances of all kinds of nodes, one by one, and what leaves them as they are."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from equipoise.models.coupling_transformer.distances import (
    LEGACY_ATOMS,
    squared_distances,
    with_legacy_padding,
)
from tests.models.coupling_transformer.molecule_batches import (
    LABELS,
    Batch,
    batched,
    molecule,
    network,
    several,
)


class OneByOne:
    """The distances of a molecule as the docstring words them, two nodes at a time."""

    def __init__(self, one: Batch) -> None:
        self.one = one
        self.position = one["position"].tolist()

    def members(self, kind: str, number: int, of: str) -> list[tuple[str, int]]:
        return [(of, place) for place in self.one[f"{kind}_{of}s"][number].tolist()]

    def between(self, a: tuple[str, int], b: tuple[str, int]) -> float:
        order = ("atom", "pair", "triplet", "quad")
        (kind, number), (of, other) = sorted((a, b), key=lambda node: order.index(node[0]))
        if of == "atom":
            ends = zip(self.position[number], self.position[other], strict=True)
            return sum((x - y) ** 2 for x, y in ends)
        below = {"pair": "atom", "triplet": "pair", "quad": "triplet"}[of]
        if kind == of:
            return (self.of_parts(a, b, below) + self.of_parts(b, a, below)) / 2
        node = (kind, number)
        parts = self.members(of, other, kind)
        smallest = min(self.between(node, part) for part in parts)
        if kind == below and of != "triplet":
            return smallest
        if (kind, of) == ("pair", "triplet"):
            return smallest
        nearer = parts[:2] if (kind, of) == ("atom", "quad") else parts[:1]
        return smallest + min(self.between(node, part) for part in nearer)

    def of_parts(self, a: tuple[str, int], b: tuple[str, int], below: str) -> float:
        """The mean of the distances of the parts of the one to the other."""
        parts = self.members(a[0], a[1], below)
        return sum(self.between(part, b) for part in parts) / len(parts)


def nodes(one: Batch, quads: bool) -> list[tuple[str, int]]:
    kinds = ("atom", "pair", "triplet", *(["quad"] if quads else []))
    return [(kind, number) for kind in kinds for number in range(len(one[kind]))]


@pytest.mark.parametrize("quads", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_distance_is_what_its_definition_says(seed: int, quads: bool) -> None:
    one = molecule(5, triplets=3, quads=3, seed=seed)
    found = squared_distances(batched([one]), quads=quads, legacy=False)[0]
    plain, places = OneByOne(one), nodes(one, quads)
    expected = torch.tensor([[plain.between(a, b) for b in places] for a in places])
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("legacy", [True, False])
def test_they_are_symmetric_and_none_is_below_0(legacy: bool) -> None:
    found = squared_distances(batched(several()), quads=True, legacy=legacy)
    assert torch.equal(found, found.mT)
    assert (found >= 0).all()


def test_they_depend_on_where_atoms_are_from_each_other_alone() -> None:
    batch = batched(several())
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    moved = {**batch, "position": batch["position"] @ turn + torch.tensor([1.0, -2.0, 3.0])}
    for legacy in (True, False):
        found, expected = (squared_distances(b, quads=True, legacy=legacy) for b in (moved, batch))
        count, there = batch["atom"].shape[1], present(batch)
        if legacy:  # whose indices may mean padding, which does not move
            there = there[:, : count + batch["pair"].shape[1]]
            found, expected = (d[:, : there.shape[1], : there.shape[1]] for d in (found, expected))
        seen = there.unsqueeze(2) & there.unsqueeze(1)
        torch.testing.assert_close(found[seen], expected[seen])


def present(batch: Batch) -> Tensor:
    return torch.cat([batch[f"{kind}_present"] for kind in LABELS], dim=1)


@pytest.mark.parametrize("atoms", [5, LEGACY_ATOMS])
def test_legacy_padding_adds_atoms_that_are_not_there(atoms: int) -> None:
    batch = batched([molecule(5), molecule(atoms, seed=1)])
    padded = with_legacy_padding(batch)
    assert padded["atom"].shape[1] == LEGACY_ATOMS
    for name, tensor in batch.items():
        assert torch.equal(padded[name][:, : tensor.shape[1]], tensor)
        assert not padded[name][:, tensor.shape[1] :].any()


def test_larger_molecules_have_no_legacy_indices() -> None:
    batch: dict[str, Any] = batched([molecule(LEGACY_ATOMS + 1)])
    with pytest.raises(ValueError, match="takes molecules of up to 29 atoms, not of 30"):
        network(legacy_indices=True)(batch)


def test_a_batch_of_small_molecules_has_the_legacy_distances_of_a_large_one() -> None:
    """Labels of triplets are places of nodes there, also where a batch has not so many."""
    labels = {"triplet_types": (4, 40)}
    model = network(legacy_indices=True, **labels).eval()
    small, large = molecule(4, triplets=3), molecule(9, seed=1)
    small["triplet"][:, 1] = torch.tensor([40, 33, 2])
    alone = model(batched([small])).standardized
    together = model(batched([small, large])).standardized
    torch.testing.assert_close(alone[0], together[0, : alone.shape[1]])
    assert alone.any()


def test_the_slips_of_the_published_indices_are_kept() -> None:
    """A centre is the label, an atom its neighbour, a first pair an atom, a second one unmoved."""
    batch = with_legacy_padding(batched([molecule(5, triplets=2)]))
    found = squared_distances(batch, quads=False, legacy=True)[0]
    atoms, pairs = batch["atom"].shape[1], batch["pair"].shape[1]
    for number, node in product(range(2), range(atoms + pairs)):
        label = batch["triplet"][0, number, 1]
        centre, first, second = batch["triplet_atoms"][0, number]
        pair = batch["triplet_pairs"][0, number, 1]
        if node < atoms:
            row = found[node]
            expected = min(row[label], row[centre], row[first]) + row[label]
        else:
            expected = min(found[node, second], found[node, pair])
        torch.testing.assert_close(found[node, atoms + pairs + number], expected)
