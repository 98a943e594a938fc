"""Batches: padded, in the words of a vocabulary, and the same for a molecule in any company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equipoise.data.loading import Batch
from equipoise.data.molecules.batches import NAMES, MoleculeBatches
from equipoise.data.molecules.graphs import LEVELS
from equipoise.data.molecules.nmr_small import bundled
from equipoise.data.molecules.vocabulary import Vocabulary
from equipoise.data.sampling import BatchIndex
from equipoise.errors import UserError

GRAPHS = bundled(contributions=True)
ROWS = np.arange(len(GRAPHS))
VOCABULARY = Vocabulary.of(GRAPHS, ROWS, rare=10)
BATCHES = MoleculeBatches(GRAPHS, ROWS, VOCABULARY, max_pairs=250)
SHAPES = {
    "atom": (3,), "position": (3,), "atom_feature": (2,), "pair": (3,), "pair_atoms": (2,),
    "squared_distance": (), "triplet": (2,), "triplet_atoms": (3,), "triplet_pairs": (2,),
    "triplet_angle": (), "quad": (1,), "quad_atoms": (4,), "quad_pairs": (3,),
    "quad_triplets": (2,), "quad_angle": (), "coupling": (5,), "mean": (5,), "deviation": (5,),
    "type": (), "row": (),
}  # fmt: skip
LEVEL_OF = {key: level for level, names in NAMES.items() for key in (level, *names.values())} | {
    "mean": "pair", "deviation": "pair",
}  # fmt: skip


def batch_of(*molecules: int, batches: MoleculeBatches = BATCHES) -> Batch:
    return batches[BatchIndex(0, torch.tensor(molecules))]


def test_a_batch_has_the_agreed_names_shapes_and_types() -> None:
    batch = batch_of(40, 3, 200)
    most = {
        name: max(int(GRAPHS.level(name).counts[row]) for row in (40, 3, 200)) for name in LEVELS
    }
    assert set(batch) == {*SHAPES, *(f"{name}_present" for name in LEVELS), "index"}
    for name, shape in SHAPES.items():
        assert batch[name].shape == (3, most[LEVEL_OF[name]], *shape)
        real = name.endswith(("angle", "distance", "feature"))
        real |= name in ("position", "coupling", "mean", "deviation")
        assert batch[name].dtype == (torch.float32 if real else torch.int64)
    assert batch["index"].tolist() == [40, 3, 200]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from(ROWS.tolist()), min_size=1, max_size=6, unique=True))
def test_a_molecule_is_the_same_in_any_company_and_the_rest_is_padding(rows: list[int]) -> None:
    together = batch_of(*rows)
    alone = batch_of(rows[-1])
    for name, level in LEVEL_OF.items():
        there = together[f"{level}_present"][-1]
        own = alone[name][0][alone[f"{level}_present"][0]]
        torch.testing.assert_close(together[name][-1][there], own, rtol=0, atol=0)
        padding = {"row": -1, "deviation": 1}.get(name, 0)
        assert (together[name][-1][~there] == padding).all()


def test_pairs_come_in_the_published_order_and_triplets_name_their_own() -> None:
    batch = batch_of(*ROWS.tolist())
    pairs, atoms = batch["pair_atoms"], batch["pair_present"]
    first, second = pairs.unbind(-1)
    places = torch.gather(batch["position"], 1, first[..., None].expand(-1, -1, 3))
    others = torch.gather(batch["position"], 1, second[..., None].expand(-1, -1, 3))
    distances = (places - others).square().sum(-1)
    torch.testing.assert_close(distances[atoms], batch["squared_distance"][atoms])
    for molecule in (0, 50, 311):
        real = GRAPHS.level("pair").columns["real"]
        start, count = GRAPHS.level("pair").starts[molecule], int(atoms[molecule].sum())
        number = int(real[start : start + count].sum())
        keys = pairs[molecule, :number].tolist()
        assert keys == sorted(keys)
        rest = batch["squared_distance"][molecule, number:count].tolist()
        assert rest == sorted(rest)
    check_pairs(batch, "triplet", [(0, 1), (0, 2)])
    check_pairs(batch, "quad", [(0, 1), (0, 2), (1, 3)])


def check_pairs(batch: Batch, level: str, ends: list[tuple[int, int]]) -> None:
    """The pairs that items name are of the atoms that they name."""
    there, atoms = batch[f"{level}_present"], batch[f"{level}_atoms"]
    for place, end in enumerate(ends):
        rows = batch[f"{level}_pairs"][..., place]
        found = torch.gather(batch["pair_atoms"], 1, rows[..., None].expand(-1, -1, 2))
        wanted = atoms[..., list(end)]
        assert sorted_ends(found[there]).equal(sorted_ends(wanted[there]))


def sorted_ends(pairs: Tensor) -> Tensor:
    return pairs.sort(dim=-1).values


def test_the_two_triplets_of_a_quad_share_its_middle() -> None:
    batch = batch_of(*ROWS.tolist())
    there = batch["quad_present"]
    for place, (centre, end) in enumerate([((0), (1, 2)), ((1), (0, 3))]):
        rows = batch["quad_triplets"][..., place]
        found = torch.gather(batch["triplet_atoms"], 1, rows[..., None].expand(-1, -1, 3))[there]
        assert found[:, 0].equal(batch["quad_atoms"][..., centre][there])
        assert sorted_ends(found[:, 1:]).equal(sorted_ends(batch["quad_atoms"][..., end][there]))


def test_contributions_sum_to_the_coupling_and_nothing_is_predicted_twice() -> None:
    batch = batch_of(*ROWS.tolist())
    predicted = batch["type"] > 0
    couplings = batch["coupling"][predicted]
    torch.testing.assert_close(couplings[:, 1:].sum(1), couplings[:, 0], rtol=1e-4, atol=2e-3)
    assert sorted(batch["row"][predicted].tolist()) == list(range(6657))
    assert not batch["coupling"][~predicted].any()
    assert (batch["row"][~predicted] == -1).all()
    scaled = (couplings - batch["mean"][predicted]) / batch["deviation"][predicted]
    assert scaled.mean(dim=0).abs().max() < 1e-3
    assert scaled.std(dim=0) == pytest.approx([1] * 5, abs=0.02)


def test_few_pairs_leave_the_farthest_out_but_never_a_real_one() -> None:
    batches = MoleculeBatches(GRAPHS, ROWS, VOCABULARY, max_pairs=69)
    whole, cut = batch_of(218), batch_of(218, batches=batches)
    assert int(cut["pair_present"].sum()) == 69 < int(whole["pair_present"].sum())
    assert int((cut["type"] > 0).sum()) == int((whole["type"] > 0).sum())
    with pytest.raises(UserError, match="pairs of atoms with a bond or a coupling, more"):
        MoleculeBatches(GRAPHS, ROWS, VOCABULARY, max_pairs=20)


def test_no_axis_is_empty() -> None:
    water = int(np.flatnonzero(GRAPHS.level("quad").counts == 0)[0])
    batch = batch_of(water)
    assert batch["quad"].shape == (1, 1, 1)
    assert not batch["quad_present"].any()
