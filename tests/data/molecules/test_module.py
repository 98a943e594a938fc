"""The data modules of couplings: splits, loaders, checks, and what they tell."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.data import Champs, NmrSmall
from equipoise.data.module import SPLITS
from equipoise.data.molecules.module import MoleculeDataModule, split
from equipoise.errors import UserError
from tests.data.molecules.csv_writing import (
    CLUSTER,
    CYANIDE,
    methanes,
    pair_lines,
    structure_lines,
)


@settings(deadline=None)
@given(st.integers(5, 3000))
def test_validation_is_the_published_part(count: int) -> None:
    shuffled = np.random.RandomState(0).permutation(count)
    parts = split(count, 0, val=0.2, test=0)
    np.testing.assert_array_equal(parts["val"], shuffled[int(0.6 * count) : int(0.8 * count)])
    np.testing.assert_array_equal(parts["test"], parts["val"])
    assert set(parts["train"]) == set(shuffled) - set(parts["val"])


@settings(deadline=None)
@given(
    st.integers(30, 500), st.integers(0, 9), st.integers(1, 9).flatmap(
        lambda val: st.tuples(st.just(val), st.integers(1, 10 - val))
    ),
)  # fmt: skip
def test_the_parts_have_their_sizes_and_share_nothing(
    count: int, seed: int, tenths: tuple[int, int]
) -> None:
    val, test = (part / 10 for part in tenths)
    parts = split(count, seed, val=val, test=test)
    together = np.concatenate([parts[name] for name in SPLITS])
    assert sorted(together) == list(range(count))
    assert len(parts["val"]) == pytest.approx(val * count, abs=1)
    assert len(parts["test"]) == pytest.approx(test * count, abs=1)


def visited(data: MoleculeDataModule, name: str) -> list[int]:
    data.setup(None)
    loader = {"train": data.train_dataloader, "val": data.val_dataloader,
              "test": data.test_dataloader}[name]()  # fmt: skip
    found = []
    for batch in loader:
        rows = batch["row"]
        found += rows[rows >= 0].tolist()
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_has_each_coupling_once_and_the_splits_have_all(workers: int) -> None:
    found = [visited(NmrSmall(num_workers=workers), name) for name in SPLITS]
    assert sorted(found[0] + found[1] + found[2]) == list(range(6657))


def test_the_seed_of_a_run_shuffles_but_does_not_divide() -> None:
    one, other, divided = NmrSmall(seed=1), NmrSmall(seed=2), NmrSmall(split_seed=1)
    assert visited(one, "train") != visited(other, "train")
    assert visited(one, "train") == visited(NmrSmall(seed=1), "train")
    assert visited(one, "test") == visited(other, "test")
    assert set(visited(one, "test")) != set(visited(divided, "test"))


def test_batches_have_molecules_of_similar_size() -> None:
    data = NmrSmall()
    data.setup(None)
    batches = list(data.train_dataloader())
    present = sum(int(batch["pair_present"].sum()) for batch in batches)
    assert present > 0.8 * sum(batch["pair_present"].numel() for batch in batches)


def test_a_loader_resumes_within_an_epoch() -> None:
    data = NmrSmall()
    data.setup(None)
    whole = [batch["row"].tolist() for batch in data.train_dataloader()]
    loader = data.train_dataloader()
    for number, _ in enumerate(loader, start=1):
        if number == 3:
            break
    again = data.train_dataloader()
    again.load_state_dict(loader.state_dict())
    assert [batch["row"].tolist() for batch in again] == whole[3:]


def test_the_data_tell_the_numbers_of_labels_and_refuse_others() -> None:
    sizes = NmrSmall().inspect()
    assert {name: len(size) for name, size in sizes.items()} == {
        "atom_types": 3, "pair_types": 3, "triplet_types": 2, "quad_types": 1,
    }  # fmt: skip
    assert NmrSmall(**sizes).inspect() == sizes
    with pytest.raises(UserError, match=r"task has quad_types=\[3\], but the training molecules"):
        NmrSmall(quad_types=[3]).inspect()
    NmrSmall().check_model(SimpleNamespace(**sizes))
    NmrSmall().check_model(SimpleNamespace())
    with pytest.raises(UserError, match=r"the model has atom_types=\[1, 2, 3\], but"):
        NmrSmall().check_model(SimpleNamespace(atom_types=[1, 2, 3]))


def test_what_cannot_be_kept_is_refused_before_a_run_begins(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"more than max_pairs=60: raise that to 69 or more"):
        NmrSmall(max_pairs=60).inspect()
    with pytest.raises(UserError, match="no molecule is left for val"):
        Champs(path=str(methanes(tmp_path, 3)), val_fraction=0.1).inspect()


def test_facts_count_molecules_and_couplings_by_type() -> None:
    data = NmrSmall()
    facts = [data.facts(name) for name in SPLITS]
    assert sum(fact["molecules"] for fact in facts) == 312
    assert sum(sum(fact["couplings"].values()) for fact in facts) == 6657
    assert data.types_seen == tuple(facts[0]["couplings"])
    assert len(data.type_means()) == 8


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"val_fraction": 0.0}, "task.val_fraction is 0"),
        ({"val_fraction": 1.0}, "task.val_fraction is 1.0"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"max_pairs": 0}, "task.max_pairs is 0"),
        ({"rare": 0}, "task.rare is 0"),
        ({"split_seed": -1}, "task.split_seed is -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        NmrSmall(**setting)


def test_too_few_molecules_for_the_fractions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"3 molecules are too few .* no molecule is left for val"):
        Champs(path=str(methanes(tmp_path, 3)), val_fraction=0.1).setup(None)


def test_a_folder_is_read_from_the_home_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methanes(tmp_path / "champs", 10)
    monkeypatch.setenv("HOME", str(tmp_path))
    data = Champs(path="~/champs", cache_dir="~/cache")
    data.setup(None)
    assert data.facts("val")["molecules"] == 2
    assert not data.facts("val")["competition"]
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert len(data.graphs) == len(Champs(path="~/champs", cache_dir="~/cache").graphs)


@pytest.mark.parametrize("name", ["structures.csv", "train.csv"])
def test_an_absent_file_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    folder = methanes(tmp_path, 10)
    (folder / name).rename(folder / f"{name}.zip")
    with pytest.raises(UserError, match=f"{name}.zip is still packed: unpack it"):
        Champs(path=str(folder)).setup(None)
    (folder / f"{name}.zip").unlink()
    with pytest.raises(UserError, match=f"has no {name}: fetch structures.csv and train.csv"):
        Champs(path=str(folder)).setup(None)


def test_a_path_is_needed_and_contributions_need_their_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task=champs needs data: fetch structures\.csv"):
        Champs().setup(None)
    with pytest.raises(UserError, match=r"add it, or set task\.contributions=false"):
        Champs(path=str(methanes(tmp_path, 10)), contributions=True).setup(None)


def test_molecules_that_cannot_be_perceived_are_named_and_types_unseen_counted(
    tmp_path: Path,
) -> None:
    folder = methanes(tmp_path, 10)
    data = Champs(path=str(folder))
    held_out = data.graphs.names[data.molecules("val")[0]]
    structures = (folder / "structures.csv").read_text().splitlines()
    pairs = (folder / "train.csv").read_text().splitlines()
    structures = [line for line in structures if not line.startswith(held_out)]
    pairs = [line for line in pairs if f",{held_out}," not in line]
    structures += structure_lines(held_out, CYANIDE)
    pairs += pair_lines(held_out, [(2, 1, "2JHN", 8.0)], first=900)
    odd = next(name for name in data.graphs.names if name != held_out)
    structures = [line for line in structures if not line.startswith(odd)]
    structures += structure_lines(odd, CLUSTER)
    pairs = [line for line in pairs if f",{odd}," not in line]
    pairs += pair_lines(odd, [(1, 0, "1JHC", 100.0), (2, 0, "1JHC", 100.0)], first=1000)
    (folder / "structures.csv").write_text("\n".join(structures) + "\n")
    (folder / "train.csv").write_text("\n".join(pairs) + "\n")
    again = Champs(path=str(folder))
    with (
        pytest.warns(UserWarning, match=rf"bonds of 1 of 10 molecules could not be .*: {odd}"),
        pytest.warns(UserWarning, match=r"the val molecules have couplings of .*: 1 of 2JHN"),
    ):
        again.setup(None)
    assert again.facts("train")["bonds_by_radii"] + again.facts("val")["bonds_by_radii"] == 1
