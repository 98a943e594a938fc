"""Pictures of the user's own, in every layout that is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from equipoise.data import PictureFolder
from equipoise.errors import UserError

RandomImage = Callable[[int, int, int], Image.Image]


@pytest.fixture
def fill(random_image: RandomImage) -> Callable[..., None]:
    """Write pictures of many sizes and modes into a folder."""

    def write(folder: Path, count: int, seed: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = random_image(seed + number, 20 + 7 * number, 40 - number)
            mode = ("RGB", "L", "P", "1", "RGBA")[number % 5]
            image.convert(mode).save(folder / f"{seed + number}.{'png' if number % 2 else 'PNG'}")

    return write


def module(path: Path, **settings: Any) -> PictureFolder:
    data = PictureFolder(path=str(path), batch_size=4, image_size=32, **settings)
    data.setup()
    return data


def sizes(data: PictureFolder) -> list[int]:
    return [len(data.splits[name]) for name in ("train", "val", "test")]


def test_class_folders_directly(tmp_path: Path, fill: Callable[..., None]) -> None:
    fill(tmp_path / "cat", 10)
    fill(tmp_path / "dog", 10, seed=100)
    data = module(tmp_path, test_fraction=0.2, val_fraction=0.25)
    assert sizes(data) == [12, 4, 4]
    assert data.class_names == ["cat", "dog"]
    labels = [data.read_split(name).labels for name in ("train", "val", "test")]  # type: ignore[arg-type]
    assert [torch.bincount(found).tolist() for found in labels] == [[6, 6], [2, 2], [2, 2]]
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 32, 32)
    assert PictureFolder(path=str(tmp_path)).inspect() == {"classes": 2}
    assert PictureFolder(path=str(tmp_path), classes=2).inspect() == {}


def test_no_picture_is_in_two_splits_and_the_seed_decides(
    tmp_path: Path, fill: Callable[..., None]
) -> None:
    fill(tmp_path / "cat", 10)
    fill(tmp_path / "dog", 10, seed=100)

    def drawn(seed: int) -> list[list[int]]:
        data = module(tmp_path, seed=seed)
        splits = [data.read_split(name).source for name in ("train", "val", "test")]  # type: ignore[arg-type]
        return [split.rows.tolist() for split in splits]  # type: ignore[attr-defined]

    assert sorted(row for rows in drawn(0) for row in rows) == list(range(20))
    assert drawn(0) == drawn(0)
    assert drawn(0)[2] != drawn(1)[2] or drawn(0)[1] != drawn(1)[1]


def test_one_folder_without_classes(tmp_path: Path, fill: Callable[..., None]) -> None:
    fill(tmp_path, 10)
    data = module(tmp_path, test_fraction=0.2, val_fraction=0.25)
    assert sizes(data) == [6, 2, 2]
    assert data.class_names == []
    assert data.read_split("train").labels.tolist() == [-1] * 6
    assert data.inspect() == {"classes": 0}


def test_a_single_class_is_none(tmp_path: Path, fill: Callable[..., None]) -> None:
    fill(tmp_path / "everything", 10)
    (tmp_path / "empty").mkdir()
    data = module(tmp_path)
    assert data.class_names == []
    assert data.read_split("train").labels.unique().tolist() == [-1]


def test_pictures_beside_the_class_folders_are_trained_on_without_a_label(
    tmp_path: Path, fill: Callable[..., None]
) -> None:
    fill(tmp_path / "train" / "cat", 4)
    fill(tmp_path / "train" / "dog", 4, seed=100)
    fill(tmp_path / "train", 3, seed=200)
    data = module(tmp_path, test_fraction=0.25, val_fraction=0.34)
    assert sizes(data) == [7, 2, 2]
    assert data.read_split("train").labels.tolist().count(-1) == 3
    for name in ("val", "test"):
        assert sorted(data.read_split(name).labels.tolist()) == [0, 1]  # type: ignore[arg-type]


def test_folders_of_splits(tmp_path: Path, fill: Callable[..., None]) -> None:
    for number, name in enumerate(("train", "test")):
        fill(tmp_path / name / "cat", 4 - number, seed=1000 * number)
        fill(tmp_path / name / "dog", 4 - number, seed=1000 * number + 100)
    assert sizes(module(tmp_path, val_fraction=0.25)) == [6, 2, 6]
    assert sizes(module(tmp_path, val_fraction=0.0)) == [8, 6, 6]
    fill(tmp_path / "val" / "dog", 2, seed=5000)
    data = module(tmp_path)
    assert sizes(data) == [8, 2, 6]
    assert data.read_split("val").labels.tolist() == [1, 1]
    fill(tmp_path / "val" / "owl", 2, seed=6000)
    with pytest.raises(UserError, match="val has the class owl, which the training images lack"):
        module(tmp_path)


def test_no_pictures_at_all(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see")
    data = PictureFolder(path=str(tmp_path))
    for look in (data.inspect, data.setup):
        with pytest.raises(UserError, match=f"The folder {tmp_path} has no pictures: put some"):
            look()


def test_what_is_missing_is_named(tmp_path: Path, fill: Callable[..., None]) -> None:
    with pytest.raises(UserError, match=r"set task\.path to a folder of pictures"):
        PictureFolder().inspect()
    fill(tmp_path / "cat", 2)
    fill(tmp_path / "dog", 2, seed=100)
    with pytest.raises(UserError, match=r"no pictures for val: add some, or change"):
        module(tmp_path, val_fraction=0.0, test_fraction=0.0)
    with pytest.raises(UserError, match=r"has 2 classes, but task\.classes is 7"):
        PictureFolder(path=str(tmp_path), classes=7).inspect()


def test_a_damaged_picture_is_named(tmp_path: Path, fill: Callable[..., None]) -> None:
    fill(tmp_path, 6)
    (tmp_path / "3.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"3\.png cannot be used \(it is empty or no image\)"):
        module(tmp_path)


def test_a_picture_that_breaks_after_it_was_looked_at_is_named(
    tmp_path: Path, fill: Callable[..., None]
) -> None:
    fill(tmp_path, 6)
    data = module(tmp_path)
    (tmp_path / "3.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"3\.png cannot be decoded"):
        [list(getattr(data, f"{name}_dataloader")()) for name in ("train", "val", "test")]
