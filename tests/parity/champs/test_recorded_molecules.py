"""The features of sixteen molecules beside those that the published pipeline has recorded.

The recordings are copied here; where the environment variable EQUIPOISE_FIXTURES names the folder
of the whole ones, these are read as well.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from equipoise.data.molecules.batches import MoleculeBatches
from equipoise.data.molecules.preparation import CouplingFiles, prepared
from equipoise.data.molecules.vocabulary import Vocabulary
from equipoise.data.sampling import BatchIndex

HERE = Path(__file__).parent
CHARGE_DIFFERENCE = 0.041
"""The largest from RDKit to the recorded OpenBabel: of a nitrogen with three bonds."""
RECORDED_LEVELS = {"atom": "atom", "pair": "bond", "triplet": "triplet", "quad": "quadruplet"}
COLUMNS: dict[str, tuple[str, slice | int]] = {
    "atom": ("x_atom", slice(None)),
    "position": ("x_atom_pos", slice(0, 3)),
    "pair": ("x_bond", slice(0, 3)),
    "pair_atoms": ("x_bond", slice(3, 5)),
    "triplet": ("x_triplet", slice(0, 2)),
    "triplet_atoms": ("x_triplet", slice(2, 5)),
    "quad": ("x_quad", slice(0, 1)),
    "quad_atoms": ("x_quad", slice(1, 5)),
    "quad_pairs": ("x_quad", slice(5, 8)),
    "quad_triplets": ("x_quad", slice(8, 10)),
}


class Recording(NamedTuple):
    vocabulary: Vocabulary
    batch: dict[str, NDArray]
    arrays: dict[str, NDArray]
    facts: dict[str, Any]


@lru_cache(maxsize=2)
def recording(whole: bool) -> Recording:
    folder = HERE
    if whole:
        fixtures = os.environ.get("EQUIPOISE_FIXTURES")
        if fixtures is None:
            pytest.skip("EQUIPOISE_FIXTURES does not name the folder of the whole recordings")
        folder = Path(fixtures) / "champs"
    graphs = prepared(
        CouplingFiles(folder / "csv" / "structures.csv", folder / "csv" / "train.csv")
    )
    rows = np.arange(len(graphs))
    vocabulary = Vocabulary.of(graphs, rows, rare=1)
    tensors = MoleculeBatches(graphs, rows, vocabulary, 250)[BatchIndex(0, torch.from_numpy(rows))]
    facts = json.loads((folder / ("meta.json" if whole else "vocabularies.json")).read_text())
    return Recording(
        vocabulary,
        {name: tensor.numpy() for name, tensor in tensors.items()},
        dict(np.load(folder / "dataset.npz")),
        facts["preprocessing"],
    )


@pytest.fixture(params=[False, True], ids=["copied", "whole"])
def recorded(request: pytest.FixtureRequest) -> Recording:
    return recording(request.param)


def cut(array: NDArray, size: int) -> NDArray:
    """The first `size` items of each molecule: what is left out is padding."""
    assert not np.nan_to_num(array[:, size:]).any()
    return array[:, :size]


def test_labels_atoms_and_indices_are_the_recorded_ones(recorded: Recording) -> None:
    for name, (key, columns) in COLUMNS.items():
        ours = recorded.batch[name]
        np.testing.assert_array_equal(ours, cut(recorded.arrays[key], ours.shape[1])[..., columns])


def test_both_pairs_of_a_triplet_are_kept_of_which_the_recorded_ones_have_the_second(
    recorded: Recording,
) -> None:
    pairs, atoms = recorded.batch["triplet_pairs"], recorded.batch["triplet_atoms"]
    there = cut(recorded.arrays["x_triplet"], pairs.shape[1])
    np.testing.assert_array_equal(pairs[..., 1], there[..., 5])
    assert not there[..., 6].any()
    for molecule, place in np.argwhere(recorded.batch["triplet_present"]):
        ends = recorded.batch["pair_atoms"][molecule, pairs[molecule, place, 0]]
        assert set(ends) == set(atoms[molecule, place, :2])


def test_distances_and_angles_are_the_recorded_ones(recorded: Recording) -> None:
    batch, arrays = recorded.batch, recorded.arrays
    distances, angles = batch["squared_distance"], batch["atom_feature"][..., 0]
    np.testing.assert_array_equal(distances, cut(arrays["x_bond_dist"], distances.shape[1]))
    np.testing.assert_array_equal(angles, cut(arrays["x_atom_pos"], angles.shape[1])[..., 3])
    for name in ("triplet", "quad"):
        angles = batch[f"{name}_angle"]
        recorded_angles = cut(arrays[f"x_{name}_angle"], angles.shape[1])
        np.testing.assert_allclose(angles, recorded_angles, rtol=0, atol=1e-6)


def test_couplings_and_their_scales_are_the_recorded_ones(recorded: Recording) -> None:
    batch = recorded.batch
    predicted = batch["type"] > 0
    y = cut(recorded.arrays["y"], predicted.shape[1])
    np.testing.assert_array_equal(predicted, y[..., 3] > 0)
    np.testing.assert_array_equal(batch["coupling"][..., 0], y[..., 0])
    np.testing.assert_allclose(batch["mean"][..., 0], y[..., 1], atol=1e-5)
    np.testing.assert_allclose(batch["deviation"][predicted, 0], y[predicted, 2], atol=1e-6)
    assert (batch["deviation"][~predicted] == 1).all()


def test_charges_are_near_those_of_openbabel(recorded: Recording) -> None:
    charges = recorded.batch["atom_feature"][..., 1]
    there = cut(recorded.arrays["x_atom_pos"], charges.shape[1])[..., 4]
    assert np.abs(charges - there).max() < CHARGE_DIFFERENCE
    assert np.corrcoef(charges[there != 0], there[there != 0])[0, 1] > 0.99


def test_vocabularies_are_the_recorded_ones(recorded: Recording) -> None:
    for name, depths in recorded.vocabulary.labels.items():
        for depth, labels in enumerate(depths):
            ids = recorded.facts["embeddings"][f"{RECORDED_LEVELS[name]}_{depth}"]
            assert {"<None>": 0, **{label: id_ for id_, label in enumerate(labels, 1)}} == ids


def test_means_and_deviations_are_the_recorded_ones(recorded: Recording) -> None:
    for label, (mean,) in recorded.vocabulary.mean.items():
        assert mean == pytest.approx(recorded.facts["sc_mean"][label], rel=1e-6)
        (deviation,) = recorded.vocabulary.deviation[label]
        assert deviation == pytest.approx(recorded.facts["sc_std"][label], rel=1e-6, abs=1e-6)
