"""What may be turned, moved, renumbered or padded without any change, and what may not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.models.coupling_transformer.molecule_batches import (
    COLUMNS,
    KINDS,
    Batch,
    batched,
    molecule,
    network,
    several,
)

BOTH = [{"quads": True}, {"quads": False}]


def predicted(batch: Batch, **changes: Any) -> Tensor:
    found: Tensor = network(**{"quads": True, **changes}).eval()(batch).standardized
    return found


def rotation() -> Tensor:
    torch.manual_seed(1)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    return turn


def renumbered(one: Batch, order: dict[str, Tensor]) -> Batch:
    """The same molecule with its nodes in another order: `order` says which was the first, ..."""
    place = {kind: old.argsort() for kind, old in order.items()}
    moved = {
        name: one[name][order[kind]] if kind in order else one[name]
        for kind, names in COLUMNS.items()
        for name in names
    }
    for kind in order:
        for name in moved:
            if name.endswith(f"_{kind}s"):
                moved[name] = place[kind][moved[name]]
    return moved


def shuffled(one: Batch, kinds: tuple[str, ...], seed: int = 3) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {kind: torch.randperm(len(one[kind]), generator=random) for kind in kinds}


@pytest.mark.parametrize("changes", [*BOTH, {"legacy_indices": True}])
def test_molecules_do_not_see_each_other(changes: dict[str, Any]) -> None:
    molecules = several()
    together = predicted(batched(molecules), **changes)
    backwards = predicted(batched(molecules[::-1]), **changes)
    torch.testing.assert_close(backwards.flip(0), together)
    for row, one in enumerate(molecules):
        alone = predicted(batched([one]), **changes)
        torch.testing.assert_close(together[row, : alone.shape[1]], alone[0])


@settings(deadline=None, max_examples=20)
@given(
    more=st.fixed_dictionaries({kind: st.integers(0, 4) for kind in KINDS}),
    legacy=st.booleans(),
    quads=st.booleans(),
)
def test_more_padding_of_any_kind_changes_nothing(
    more: dict[str, int], legacy: bool, quads: bool
) -> None:
    changes = {"legacy_indices": legacy, "quads": quads}
    padded = predicted(batched(several(), more), **changes)
    plain = predicted(batched(several()), **changes)
    torch.testing.assert_close(padded[:, : plain.shape[1]], plain)
    assert not padded[:, plain.shape[1] :].any()


@pytest.mark.parametrize("changes", BOTH)
def test_what_stands_in_padding_is_never_read(changes: dict[str, Any]) -> None:
    more = dict.fromkeys(KINDS, 2)
    plain, filled = batched(several(), more), batched(several(), more)
    for kind, names in COLUMNS.items():
        for name in names:
            if name != "type":
                filled[name][~plain[f"{kind}_present"]] = 1
    torch.testing.assert_close(predicted(filled, **changes), predicted(plain, **changes))


def test_turned_moved_and_mirrored_molecules_have_the_same_couplings() -> None:
    batch = batched(several())
    moved = {**batch, "position": batch["position"] @ rotation() + torch.tensor([5.0, -3.0, 2.0])}
    torch.testing.assert_close(predicted(moved), predicted(batch))
    mirrored = {**batch, "position": batch["position"] * torch.tensor([-1.0, 1.0, 1.0])}
    torch.testing.assert_close(predicted(mirrored), predicted(batch))


def test_with_the_published_indices_turning_changes_nothing_but_moving_does() -> None:
    """A label may mean an atom of padding, which lies at the origin."""
    batch = batched(several())
    before = predicted(batch, legacy_indices=True)
    turned = {**batch, "position": batch["position"] @ rotation()}
    torch.testing.assert_close(predicted(turned, legacy_indices=True), before)
    moved = {**batch, "position": batch["position"] + torch.tensor([5.0, -3.0, 2.0])}
    assert (predicted(moved, legacy_indices=True) - before).abs().max() > 1e-5


@pytest.mark.parametrize("kinds", [("atom",), ("pair",), ("triplet",), ("quad",), KINDS])
@pytest.mark.parametrize("changes", BOTH)
def test_nodes_may_be_renumbered(kinds: tuple[str, ...], changes: dict[str, Any]) -> None:
    one = molecule(6)
    order = shuffled(one, kinds)
    found = predicted(batched([renumbered(one, order)]), **changes)
    expected = predicted(batched([one]), **changes)
    places = order.get("pair", torch.arange(len(one["pair"])))
    torch.testing.assert_close(found[0], expected[0, places])


def test_the_ends_of_a_pair_and_of_a_triplet_may_be_swapped() -> None:
    one = molecule(6)
    swapped = {
        **one,
        "pair_atoms": one["pair_atoms"].flip(1),
        "triplet_atoms": one["triplet_atoms"][:, [0, 2, 1]],
        "triplet_pairs": one["triplet_pairs"].flip(1),
        "quad_atoms": one["quad_atoms"][:, [1, 0, 3, 2]],
        "quad_pairs": one["quad_pairs"][:, [0, 2, 1]],
        "quad_triplets": one["quad_triplets"].flip(1),
    }
    torch.testing.assert_close(predicted(batched([swapped])), predicted(batched([one])))


@pytest.mark.parametrize(
    ("kind", "changes_them"), [("atom", True), ("pair", True), ("triplet", False), ("quad", False)]
)
def test_the_published_indices_depend_on_the_numbers_of_atoms_and_pairs(
    kind: str, changes_them: bool
) -> None:
    """They take a label, an atom and a pair for places among all nodes; but no triplet."""
    one = molecule(6)
    order = shuffled(one, (kind,))
    changes = {"legacy_indices": True, "quads": False}
    found = predicted(batched([renumbered(one, order)]), **changes)
    expected = predicted(batched([one]), **changes)
    places = order.get("pair", torch.arange(len(one["pair"])))
    assert torch.allclose(found[0], expected[0, places], atol=1e-7) == (not changes_them)
