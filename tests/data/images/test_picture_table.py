"""Datasets in the hub's layout by the names of their columns, with labels of any kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from equipoise.data import PictureTable
from equipoise.errors import UserError

Table = Callable[..., datasets.Dataset]
WriteSplit = Callable[[Path, str, datasets.Dataset], None]


def module(path: Path, **typed: Any) -> PictureTable:
    return PictureTable(
        path=str(path), **{"batch_size": 4, "image_size": 16, "num_workers": 0, **typed}
    )


@pytest.fixture
def folder(tmp_path: Path, table: Table, write_split: WriteSplit) -> Callable[..., Path]:
    """Write a dataset with a column `photo` and a column of the labels of each split."""

    def make(column: str, feature: object = None, **labels: list[Any]) -> Path:
        for name, values in labels.items():
            rows = table(len(values), seed=len(values), column="photo").remove_columns("label")
            rows = rows.add_column(column, values)
            rows = rows if feature is None else rows.cast_column(column, feature)
            write_split(tmp_path / "own", name, rows)
        return tmp_path / "own"

    return make


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["cat", "dog"], ["cat", "dog"]),
        ([30, 4], ["4", "30"]),
        ([True, False], ["False", "True"]),
    ],
)
def test_labels_of_any_kind(folder: Callable[..., Path], labels: list[Any], names: list[str]):
    path = folder("kind", train=labels * 10, test=labels[:1] * 3)
    data = module(path, image_column="photo", label_column="kind")
    assert data.inspect() == {"classes": 2, "names": names}
    data.setup()
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [18, 2, 3]
    assert data.class_names == names
    place = names.index(str(labels[0]))
    assert data.read_split("test").labels.tolist() == [place] * 3
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 16, 16)


def test_named_classes_keep_their_names_and_their_order(folder: Callable[..., Path]) -> None:
    feature = datasets.ClassLabel(names=["zebra", "ant", "bee"])
    path = folder("label", feature, train=[0, 1] * 8, validation=[1, 0], test=[-1, -1])
    data = module(path, image_column="photo")
    with pytest.warns(UserWarning, match="'test' of .* has no labels and is not used"):
        assert data.inspect() == {"classes": 3, "names": ["zebra", "ant", "bee"]}
    assert data.read_split("val").labels.tolist() == [1, 0]
    counts = data.details()["pictures"]
    assert counts == {"train": 14, "val": 2, "test": 2}


def test_a_row_without_a_label_or_a_picture_cannot_be_used(folder: Callable[..., Path]) -> None:
    path = folder("kind", train=["a", None, *["b", "a"] * 5])
    words = {"image_column": "photo", "label_column": "kind"}
    with pytest.raises(UserError, match=r"in row 1 of the split 'train' .*\(it has no label\)"):
        module(path, **words).inspect()
    data = module(path, **words, damaged="skip")
    with pytest.warns(UserWarning, match="1 of the pictures"):
        assert data.inspect() == {"classes": 2, "names": ["a", "b"]}
    assert data.details()["pictures"]["skipped"] == 1


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"image_column": "foto"}, r"no column 'foto', only photo, .*task\.image_column"),
        ({"label_column": "sort"}, r"no column 'sort', only photo, .*task\.label_column"),
        ({"image_column": "size"}, "has no images in its column 'size'"),
        ({"label_column": "size"}, r"'size' that cannot be classes, such as 0\.5"),
        ({"label_column": "label", "classes": 3}, r"has 2 classes, but task\.classes is 3"),
        ({"label_column": "label", "names": ["a"]}, "has the class b, which the training"),
    ],
)
def test_columns_and_classes_that_are_not_so_are_named(
    tmp_path: Path, table: Table, write_split: WriteSplit, typed: dict[str, Any], said: str
) -> None:
    rows = table(8, seed=0, column="photo").remove_columns("label")
    rows = rows.add_column("label", ["a", "b"] * 4).add_column("size", [0.5] * 8)
    write_split(tmp_path / "own", "train", rows)
    with pytest.raises(UserError, match=said):
        module(tmp_path / "own", **{"image_column": "photo", **typed}).inspect()


def test_a_class_that_training_lacks_and_a_dataset_without_a_training_split(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    path = folder("kind", train=["a", "b"] * 6, test=["c"])
    words = {"image_column": "photo", "label_column": "kind"}
    with pytest.raises(UserError, match=r"'test' of .* has the class c, which the training"):
        module(path, **words).inspect()
    next(path.glob("train-*")).unlink()
    with pytest.raises(UserError, match="has no split 'train', only test"):
        module(path, **words).inspect()
    with pytest.raises(UserError, match="needs a dataset"):
        PictureTable().inspect()
