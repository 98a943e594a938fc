"""Reading one folder a class."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import datasets
import pytest
from PIL import Image

from equipoise.data.folders import named
from equipoise.data.images.encoded import decode_rgb
from equipoise.data.images.labelled import ImageFolder, ImageTable, class_folders
from equipoise.errors import Unreadable, UserError


def test_suffixes_in_any_case_and_labels_by_the_given_classes(
    tmp_path: Path, random_image: Callable[..., Image.Image]
) -> None:
    for name in ("b/1.JPEG", "b/2.jpg", "a/3.PNG", "a/notes.txt"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        if file.suffix == ".txt":
            file.write_text("no image")
        else:
            random_image(0, 4, 4).save(file)
    source = ImageFolder(tmp_path, ["a", "b", "c"])
    assert source.files == ["a/3.PNG", "b/1.JPEG", "b/2.jpg"]
    assert source.labels.tolist() == [0, 1, 1]
    assert class_folders(tmp_path) == ["a", "b"]
    assert source.describe(2) == str(tmp_path / "b" / "2.jpg")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train is missing"):
        class_folders(tmp_path / "train")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="empty has no images"):
        ImageFolder(tmp_path / "empty", ["a"])
    with pytest.raises(UserError, match="class a, which the training images lack"):
        ImageFolder(tmp_path / "empty", ["b"])


@pytest.mark.parametrize("column", ["img", "image"])
def test_rows_labels_and_class_names(
    column: str,
    png: Callable[..., bytes],
    random_image: Callable[..., Image.Image],
    table: Callable[..., datasets.Dataset],
) -> None:
    source = ImageTable(table(5, seed=0, column=column), "the split 'train' of x")
    assert source.classes == ["cat", "dog", "owl"]
    assert source.labels.tolist() == [0, 1, 2, 0, 1]
    assert source.encoded(3) == png(random_image(3, 32, 32))
    assert source.describe(3) == "in row 3 of the split 'train' of x"


def test_images_that_are_paths_and_labels_without_names(
    tmp_path: Path, random_image: Callable[..., Image.Image]
) -> None:
    random_image(0, 8, 8).save(tmp_path / "a.png")
    rows = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.png")], "label": [2]})
    source = ImageTable(rows, "x")
    with pytest.raises(Unreadable, match=r"a\.png leads out of its dataset"):
        source.encoded(0)
    named(tmp_path)
    assert source.encoded(0) == (tmp_path / "a.png").read_bytes()
    assert source.classes == ["0", "1", "2"]


def test_what_a_table_lacks_is_named(table: Callable[..., datasets.Dataset]) -> None:
    with pytest.raises(UserError, match="no column 'image' or 'img', only picture, label"):
        ImageTable(table(2, seed=0, column="picture"), "x")
    with pytest.raises(UserError, match="no column 'label', only img"):
        ImageTable(table(2, seed=0).remove_columns("label"), "x")
    with pytest.raises(UserError, match="x has no rows"):
        ImageTable(table(2, seed=0).select([]), "x")
    withheld = table(2, seed=0).cast_column("label", datasets.Value("int64"))
    with pytest.raises(UserError, match="label -1"):
        ImageTable(withheld.map(lambda row: {"label": -1}), "x")


@pytest.mark.parametrize("label", [None, 1.5, "cat", [1]])
def test_labels_that_are_no_numbers_of_classes_are_named(
    table: Callable[..., datasets.Dataset], label: object
) -> None:
    images = table(2, seed=0).remove_columns("label")
    whole = 0 if label is None else label
    with pytest.raises(UserError, match="x has labels that are not integers"):
        ImageTable(images.add_column("label", [whole, label]), "x")


def test_a_column_that_holds_no_images_is_named() -> None:
    numbers = datasets.Dataset.from_dict({"image": [1, 2], "label": [0, 1]})
    with pytest.raises(UserError, match="x has no images in its column 'image'"):
        ImageTable(numbers, "x")


def test_an_empty_cell_is_named(table: Callable[..., datasets.Dataset]) -> None:
    rows = table(2, seed=0).cast_column("img", datasets.Image(decode=False))
    source = ImageTable(
        rows.map(lambda row, i: {"img": row["img"] if i else None}, with_indices=True), "x"
    )
    with pytest.raises(UserError, match=r"in row 0 of x cannot be decoded \(the cell is empty\)"):
        decode_rgb(source, 0)
    assert decode_rgb(source, 1).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("labels", "whole", "fits"),
    [([0, 4], True, True), ([0, 2], True, False), ([0, 2], False, True), ([0, 5], False, False)],
)
def test_labels_without_names_are_counted_where_they_are_all(
    table: Callable[..., datasets.Dataset], labels: list[int], whole: bool, fits: bool
) -> None:
    rows = table(2, seed=0).remove_columns("label").add_column("label", labels)
    source = ImageTable(rows, "x")
    with nullcontext() if fits else pytest.raises(UserError, match=r"but task\.classes is 5"):
        source.refuse_other_classes(5, whole)
