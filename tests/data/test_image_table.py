"""Reading labelled images from a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from PIL import Image

from equipoise.data.image_table import ImageTable
from equipoise.errors import UserError


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
    assert source.encoded(0) == (tmp_path / "a.png").read_bytes()
    assert source.classes == ["0", "1", "2"]


def test_what_is_missing_is_named(table: Callable[..., datasets.Dataset]) -> None:
    with pytest.raises(UserError, match="no column 'image' or 'img', only picture, label"):
        ImageTable(table(2, seed=0, column="picture"), "x")
    with pytest.raises(UserError, match="no column 'label', only img"):
        ImageTable(table(2, seed=0).remove_columns("label"), "x")
    with pytest.raises(UserError, match="x has no rows"):
        ImageTable(table(2, seed=0).select([]), "x")
    withheld = table(2, seed=0).cast_column("label", datasets.Value("int64"))
    with pytest.raises(UserError, match="label -1"):
        ImageTable(withheld.map(lambda row: {"label": -1}), "x")
