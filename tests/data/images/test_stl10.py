"""STL-10 in its published binary files and as tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch import Tensor

from equipoise.data import Stl10, Views
from equipoise.data.images.stl10 import CLASSES, STL10, BinaryImages
from equipoise.errors import UserError
from tests.data.images.test_view_augmentations import published

COUNTS = {"train": 20, "test": 10, "unlabeled": 7}


@pytest.fixture
def stl10_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "stl10"
    (folder / "stl10_binary").mkdir(parents=True)
    for number, (name, count) in enumerate(COUNTS.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
        pixels.transpose(0, 1, 3, 2).tofile(folder / "stl10_binary" / f"{name}_X.bin")
        if name != "unlabeled":
            labels = np.arange(count, dtype=np.uint8) % 10 + 1
            labels.tofile(folder / "stl10_binary" / f"{name}_y.bin")
    return folder


def stored(name: str) -> Tensor:
    """The pictures that the fixture wrote."""
    number, count = list(COUNTS).index(name), COUNTS[name]
    pixels = np.random.default_rng(number).integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
    return torch.from_numpy(pixels)


def module(path: Path, **settings: Any) -> Stl10:
    data = Stl10(path=str(path), batch_size=4, image_size=64, **settings)
    data.setup()
    return data


def labels(data: Stl10, name: str) -> Tensor:
    split = data.read_split(name)  # type: ignore[arg-type]
    return split.labels


def test_pixels_are_stored_column_by_column_and_labels_begin_with_one(stl10_folder: Path) -> None:
    root = stl10_folder / "stl10_binary"
    images = BinaryImages(root / "train_X.bin", root / "train_y.bin")
    assert all(torch.equal(images.pixels(row), stored("train")[row]) for row in (0, 7, 19))
    assert images.labels.tolist() == [*range(10), *range(10)]


@pytest.mark.parametrize("inside", ["", "stl10_binary"])
def test_the_splits(stl10_folder: Path, inside: str) -> None:
    data = module(stl10_folder / inside, val_fraction=0.5)
    assert [len(data.splits[n]) for n in ("train", "val", "test")] == [17, 10, 10]
    assert labels(data, "train")[10:].tolist() == [-1] * 7
    for name in ("train", "val", "test"):
        assert sorted(labels(data, name)[:10].tolist()) == list(range(10))
    assert data.class_names == list(CLASSES)
    assert torch.equal(data.read_split("train").pixels(16), stored("unlabeled")[6])
    without = module(stl10_folder, val_fraction=0.0, unlabelled=False)
    assert [len(without.splits[n]) for n in ("train", "val", "test")] == [20, 10, 10]


def test_evaluation_crops_64_of_70_pixels(stl10_folder: Path) -> None:
    data = module(stl10_folder)
    image = next(iter(data.test_dataloader()))["image"]
    assert image.shape == (4, 3, 64, 64)
    resized = torch.nn.functional.interpolate(
        stored("test")[:4].float(), (70, 70), mode="bilinear", antialias=True
    )
    expected = STL10(resized[:, :, 3:67, 3:67])
    assert (image - expected).abs().max() < 1.5 / 255 / 0.26


def test_only_labelled_pictures_are_measured_against(stl10_folder: Path) -> None:
    source = Stl10(path=str(stl10_folder), val_fraction=0.5)
    augmentation = published("ssl_stl10", crop_size=64)
    data = Views(source=source, augmentation=augmentation, batch_size=4, num_workers=0)
    data.setup("fit")
    trained = torch.cat([batch["label"] for batch in data.train_dataloader()])
    assert (trained == -1).any()
    assert data.labelled
    for loader in (data.bank_dataloader(), data.labelled_dataloader(True, 4)):
        shown = torch.cat([batch["label"] for batch in loader])
        assert sorted(shown.tolist()) == list(range(10))


def test_tables_with_and_without_a_split_of_unlabelled_pictures(
    tmp_path: Path, table: Callable[..., datasets.Dataset], write_split: Callable[..., None]
) -> None:
    folder = tmp_path / "hub" / "data"
    for name, rows in (("train", 12), ("test", 6)):
        write_split(folder, name, table(rows, seed=0, column="image", size=96))
    data = module(tmp_path / "hub", val_fraction=0.25, classes=3)
    assert [len(data.splits[n]) for n in ("train", "val", "test")] == [9, 3, 6]
    more = table(5, seed=50, column="image", size=96).remove_columns("label")
    write_split(folder, "unlabeled", more)
    data = module(tmp_path / "hub", val_fraction=0.25, classes=3)
    assert labels(data, "train").tolist()[9:] == [-1] * 5
    assert data.class_names == ["cat", "dog", "owl"]


def cut(folder: Path) -> None:
    (folder / "train_X.bin").write_bytes((folder / "train_X.bin").read_bytes()[:-1])


def mislabel(folder: Path) -> None:
    np.zeros(20, np.uint8).tofile(folder / "train_y.bin")


def shorten(folder: Path) -> None:
    np.ones(3, np.uint8).tofile(folder / "train_y.bin")


def empty(folder: Path) -> None:
    (folder / "unlabeled_X.bin").write_bytes(b"")


def remove(folder: Path) -> None:
    (folder / "unlabeled_X.bin").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, r"train_X\.bin is cut off after 19 images"),
        (mislabel, r"train_y\.bin has 20 labels from 0 to 0"),
        (shorten, r"train_y\.bin has 3 labels from 1 to 1, and .* has 20 images"),
        (empty, r"unlabeled_X\.bin cannot be read"),
        (remove, r"unlabeled_X\.bin cannot be read.*task\.unlabelled=false"),
    ],
)
def test_a_damaged_file_is_named(
    stl10_folder: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(stl10_folder / "stl10_binary")
    with pytest.raises(UserError, match=said):
        module(stl10_folder)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="STL-10 must be downloaded"):
        Stl10().setup()
    with pytest.raises(UserError, match=r"neither stl10_binary/train_X\.bin nor parquet"):
        module(tmp_path)
