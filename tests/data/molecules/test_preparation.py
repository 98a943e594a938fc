"""Graphs of whole files: stored once, in parts, on one process or several."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from equipoise.data.molecules import preparation
from equipoise.data.molecules.graphs import MoleculeGraphs, joined, read_stored, write_stored
from equipoise.data.molecules.nmr_small import bundled, folder
from equipoise.data.molecules.preparation import (
    CouplingFiles,
    cache_of_user,
    graphs_in_parts,
    prepared,
    processes_for,
    stored_or_prepared,
)
from equipoise.errors import UserError
from tests.data.molecules.csv_writing import (
    WATER,
    methanes,
    structure_lines,
)


def files_in(folder: Path, labelled: bool = True) -> CouplingFiles:
    return CouplingFiles(folder / "structures.csv", folder / "train.csv", labelled=labelled)


def assert_same(one: MoleculeGraphs, other: MoleculeGraphs) -> None:
    assert one.names == other.names
    np.testing.assert_array_equal(one.by_radii, other.by_radii)
    for name, level in one.levels.items():
        np.testing.assert_array_equal(level.starts, other.level(name).starts)
        assert level.labels == other.level(name).labels
        assert set(level.columns) == set(other.level(name).columns)
        for key, values in level.columns.items():
            np.testing.assert_array_equal(values, other.level(name).columns[key])
            assert values.dtype == other.level(name).columns[key].dtype


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    graphs = bundled(contributions=True)
    write_stored(graphs, tmp_path / "graphs.arrow")
    again = read_stored(tmp_path / "graphs.arrow")
    assert again is not None
    assert_same(graphs, again)
    assert os.listdir(tmp_path) == ["graphs.arrow"]


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"nothing of the kind"])
def test_a_damaged_file_is_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "graphs.arrow"
    write_stored(bundled(contributions=False), file)
    whole = file.read_bytes()
    for damaged in (content, whole[: len(whole) // 2], whole[:-20]):
        file.write_bytes(damaged)
        assert read_stored(file) is None
    assert read_stored(tmp_path / "absent.arrow") is None


def test_an_interrupted_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*paths: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_stored(bundled(contributions=False), tmp_path / "graphs.arrow")
    assert os.listdir(tmp_path) == []


def test_parts_make_the_same_graphs_as_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bundled(contributions=False)
    monkeypatch.setattr(preparation, "PART", 7)
    assert_same(prepared(files_in(folder())), whole)
    assert_same(joined([whole]), whole)


def test_several_processes_make_the_same_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = methanes(tmp_path, 6)
    structures, couplings = files_in(folder).read()
    alone = graphs_in_parts(structures, couplings)
    monkeypatch.setattr(preparation, "PART", 3)
    monkeypatch.setattr(preparation, "processes_for", lambda molecules: 2)
    assert_same(graphs_in_parts(structures, couplings), alone)


def test_few_molecules_and_daemons_need_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes_for(100) == 1
    assert processes_for(10**6) >= 1
    monkeypatch.setattr(preparation, "WORTH_PROCESSES", 0)
    daemon = type("Daemon", (), {"daemon": True})
    monkeypatch.setattr(preparation.multiprocessing, "current_process", lambda: daemon)
    assert processes_for(100) == 1


def test_the_features_are_computed_once_and_again_when_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_in(methanes(tmp_path, 4))
    first = prepared(files)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert_same(stored_or_prepared(files, None), first)
    (stored,) = (tmp_path / ".equipoise").iterdir()
    calls = []
    monkeypatch.setattr(preparation, "prepared", lambda files: calls.append(files) or first)
    assert_same(stored_or_prepared(files, None), first)
    assert not calls
    stored.write_bytes(b"damaged")
    stored_or_prepared(files, None)
    assert len(calls) == 1
    methanes(tmp_path, 5)
    stored_or_prepared(files, None)
    assert len(calls) == 2


def test_a_read_only_folder_sends_them_to_the_cache_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_in(methanes(tmp_path / "data", 4))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data" / ".equipoise").write_text("a file where a folder would be")
    graphs = stored_or_prepared(files, None)
    (stored,) = cache_of_user().iterdir()
    again = read_stored(stored)
    assert again is not None
    assert_same(graphs, again)
    assert cache_of_user().is_relative_to(tmp_path / "cache")


def test_where_nothing_can_be_written_the_run_goes_on_or_the_key_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_in(methanes(tmp_path, 4))
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    with pytest.raises(UserError, match=r"cannot be written .*: set task.cache_dir to another"):
        stored_or_prepared(files, blocked / "inside")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    (tmp_path / ".equipoise").write_text("")
    with pytest.warns(UserWarning, match="so the features are computed in every run"):
        assert len(stored_or_prepared(files, None)) == 4


def test_molecules_without_pairs_are_left_out_unless_all_pairs_are_asked_for(
    tmp_path: Path,
) -> None:
    folder = methanes(tmp_path, 3)
    with (folder / "structures.csv").open("a") as file:
        file.write("\n".join(structure_lines("water", WATER)) + "\n")
    assert prepared(files_in(folder)).names == ("m0000", "m0001", "m0002")
    graphs = prepared(CouplingFiles(folder / "structures.csv"))
    assert graphs.names == ("m0000", "m0001", "m0002", "water")
    rows = graphs.level("pair").columns["row"]
    assert rows[rows >= 0].tolist() == list(range(3 * 10 + 1))


def test_pairs_of_a_test_file_need_no_couplings(tmp_path: Path) -> None:
    folder = methanes(tmp_path, 2)
    lines = (folder / "train.csv").read_text().splitlines()
    (folder / "test.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n")
    graphs = prepared(CouplingFiles(folder / "structures.csv", folder / "test.csv", labelled=False))
    with_couplings = prepared(files_in(folder)).level("pair").columns
    pairs = graphs.level("pair").columns
    np.testing.assert_array_equal(pairs["row"], with_couplings["row"])
    assert not pairs["coupling"].any()


def test_a_file_with_other_numbers_than_were_written_is_none(tmp_path: Path) -> None:
    file = tmp_path / "molecules.arrow"
    write_stored(bundled(contributions=False), file)
    whole = file.read_bytes()
    found = 0
    for place in range(len(whole) // 9, len(whole) - 4096, len(whole) // 9):
        damaged = bytearray(whole)
        for near in range(place, place + 2000, 8):
            damaged[near] ^= 16
        file.write_bytes(damaged)
        found += read_stored(file) is None
    assert found == 8
    file.write_bytes(whole)
    assert read_stored(file) is not None
