"""Ids of labels, scales of couplings, and what stands for a label that training has not shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from equipoise.data.molecules.batches import MoleculeBatches
from equipoise.data.molecules.graphs import MoleculeGraphs
from equipoise.data.molecules.nmr_small import bundled
from equipoise.data.molecules.preparation import CouplingFiles, prepared
from equipoise.data.molecules.vocabulary import Vocabulary, vocabulary_from_state
from equipoise.data.sampling import BatchIndex
from tests.data.molecules.csv_writing import (
    CYANIDE,
    METHANE,
    METHANE_PAIRS,
    methanes,
    pair_lines,
    structure_lines,
    write,
)

GRAPHS = bundled(contributions=False)
ROWS = np.arange(len(GRAPHS))
HALF = ROWS[::2]


def couplings_by_label(graphs: MoleculeGraphs, rows: np.ndarray) -> dict[str, list[float]]:
    pairs, found = graphs.level("pair"), {}
    chosen = graphs.items_of("pair", rows) & (pairs.columns["type"] > 0)
    for row in np.flatnonzero(chosen):
        label = pairs.labels[1][pairs.columns["label"][row, 1]]
        found.setdefault(label, []).append(float(pairs.columns["coupling"][row, 0]))
    return found


@pytest.mark.parametrize("rare", [1, 10, 100])
def test_rare_labels_are_joined_in_the_bare_type(rare: int) -> None:
    vocabulary = Vocabulary.of(GRAPHS, HALF, rare)
    joined: dict[str, list[float]] = {}
    for label, values in couplings_by_label(GRAPHS, HALF).items():
        joined.setdefault(label if len(values) >= rare else label.split("_")[0], []).extend(values)
    assert set(vocabulary.mean) == set(joined)
    for label, values in joined.items():
        assert vocabulary.mean[label] == pytest.approx((np.mean(values),), abs=1e-6)
        if len(values) > 1 and np.std(values) > 0:
            assert vocabulary.deviation[label] == pytest.approx((np.std(values, ddof=1),), rel=1e-5)
    assert set(joined) <= set(vocabulary.labels["pair"][1])


def test_labels_are_those_of_training_sorted_and_numbered_from_1() -> None:
    vocabulary = Vocabulary.of(GRAPHS, HALF[:20], rare=1)
    for name, depths in vocabulary.labels.items():
        for depth, labels in enumerate(depths):
            level = GRAPHS.level(name)
            assert list(labels) == sorted(set(labels))
            ids = vocabulary.ids(name, depth, level.labels[depth])
            assert set(ids[level.columns["label"][GRAPHS.items_of(name, HALF[:20]), depth]]) == {
                *range(1, 1 + len(labels))
            }
    assert vocabulary.ids("atom", 0, ("Xx",)).tolist() == [0]
    assert vocabulary.sizes["atom_types"][0] == len(vocabulary.labels["atom"][0])


def test_unknown_surroundings_have_the_bare_type_or_the_most_frequent_of_their_type() -> None:
    bare, surrounded = (Vocabulary.of(GRAPHS, ROWS, rare) for rare in (200, 1))
    assert bare.label("1JHC_9_9_9_9") == "1JHC"
    counts = {name: len(v) for name, v in couplings_by_label(GRAPHS, ROWS).items()}
    of_type = {name: count for name, count in counts.items() if name.startswith("1JHC")}
    assert surrounded.label("1JHC_9_9_9_9") == max(of_type, key=lambda name: of_type[name])
    known = surrounded.labels["pair"][1].index(surrounded.label("1JHC_9_9_9_9")) + 1
    assert surrounded.ids("pair", 1, ("1JHC_9_9_9_9", "X-Y_1.0")).tolist() == [known, 0]


def test_a_checkpoint_keeps_it() -> None:
    vocabulary = Vocabulary.of(bundled(contributions=True), HALF, rare=10)
    again = vocabulary_from_state(json.loads(json.dumps(vocabulary.state())))
    assert again.state() == vocabulary.state()
    for name in ("atom", "pair", "triplet", "quad"):
        for depth, labels in enumerate(GRAPHS.level(name).labels):
            expected = vocabulary.ids(name, depth, labels)
            np.testing.assert_array_equal(again.ids(name, depth, labels), expected)
    np.testing.assert_array_equal(again.scales(), vocabulary.scales())
    assert again.scales().shape[2] == 5


def test_one_coupling_of_its_kind_and_equal_ones_have_a_scale_above_0(tmp_path: Path) -> None:
    lines = [*structure_lines("a", METHANE), *structure_lines("b", CYANIDE)]
    pairs = [(a, b, kind, 5.0 if kind == "2JHH" else j) for a, b, kind, j in METHANE_PAIRS]
    pairs.append((2, 3, "2JHH", 5.0))
    rows = [*pair_lines("a", pairs), *pair_lines("b", [(2, 0, "1JHC", 270.0)], first=9)]
    folder = write(tmp_path, lines, rows)
    graphs = prepared(CouplingFiles(folder / "structures.csv", folder / "train.csv"))
    vocabulary = Vocabulary.of(graphs, np.arange(2), rare=1)
    assert vocabulary.deviation["2JHH"] == (1.0,)
    one = vocabulary.deviation["1JHC_4_2_3_1"]
    assert one == pytest.approx((np.std([112.5, 112.4, 270], ddof=1),), rel=1e-5)
    assert (vocabulary.scales()[1] > 0).all()


def test_a_type_that_training_has_not_is_predicted_as_0(tmp_path: Path) -> None:
    folder = methanes(tmp_path, 3)
    training = prepared(CouplingFiles(folder / "structures.csv", folder / "train.csv"))
    vocabulary = Vocabulary.of(training, np.arange(3), rare=1)
    assert vocabulary.types == ("1JHC", "2JHH")
    batch = MoleculeBatches(GRAPHS, ROWS, vocabulary, 250)[BatchIndex(0, torch.arange(50))]
    unseen = (batch["type"] > 0) & (batch["type"] != 1) & (batch["type"] != 4)
    assert unseen.any()
    assert not batch["pair"][unseen].any()
    assert not batch["mean"][unseen].any()
    assert (batch["deviation"][unseen] == 1).all()
