"""Looking for pictures that cannot be decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.data.images import damage
from equipoise.data.images.damage import Unusable, find_damaged
from equipoise.data.images.labelled import ImageFiles
from tests.data.images.own_files import add_unusable, own_folder


def files(root: Path) -> ImageFiles:
    found = sorted(str(file.relative_to(root)) for file in root.rglob("*.*") if "." in file.name)
    return ImageFiles(root, [(file, 0) for file in found], ["all"])


def test_all_are_found_in_the_order_of_the_rows_and_of_the_sources(tmp_path: Path) -> None:
    added = add_unusable(own_folder(tmp_path, 30))
    source = files(tmp_path)
    found = list(find_damaged([source, source]))
    assert [number for number, _, _ in found] == [0, 0, 0, 1, 1, 1]
    assert [source.files[row] for _, row, _ in found] == 2 * [place for place, _ in added]
    for (_, _, picture), (place, reason) in zip(found, added, strict=False):
        assert picture.place == str(tmp_path / place)
        assert reason in picture.reason


def test_a_file_is_decoded_again_only_after_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = files(own_folder(tmp_path, 2))
    assert list(find_damaged([source])) == []
    looked = []
    decode = damage.damage
    monkeypatch.setattr(damage, "damage", lambda s, row: looked.append(row) or decode(s, row))
    (tmp_path / source.files[3]).write_text("written over")
    assert [row for _, row, _ in find_damaged([source])] == [3]
    assert looked == [3]


def test_the_refusal_names_the_file_and_both_ways_out() -> None:
    said = str(Unusable("a/b.png", "it is empty").refusal())
    assert said.startswith("The picture a/b.png cannot be used (it is empty): replace it")
    assert "task.damaged=skip" in said
