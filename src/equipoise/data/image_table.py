"""Labelled images in a table with one row an image, as the Hugging Face hub publishes them."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import torch
from torch import Tensor

from equipoise.data.image_data_module import refuse_other_classes
from equipoise.errors import UserError

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMN = "label"


class ImageTable:
    """One split of a hub dataset: a column `image` or `img`, and a column `label`.

    Where the labels have no names, `classes` are their numbers up to the largest that occurs.
    Raises UserError when a column is missing or of another kind, the split is empty, or a label is
    negative (which is how the hub marks a split whose labels are withheld).
    """

    def __init__(self, split: datasets.Dataset, name: str) -> None:
        self.name = name
        self.image_column = _image_column(split, name)
        self.rows = _undecoded(split, self.image_column, name)
        self.labels = _labels(split, name)
        self.classes = _class_names(split, self.labels)
        self.named = isinstance(split.features[LABEL_COLUMN], datasets.ClassLabel)

    def encoded(self, row: int) -> bytes:
        """Return the file contents of the image in a row."""
        image = self.rows[row][self.image_column]
        if image is None:
            raise ValueError("the cell is empty")
        contents = image["bytes"]
        return Path(image["path"]).read_bytes() if contents is None else bytes(contents)

    def refuse_other_classes(self, classes: int, whole: bool) -> None:
        """Raise UserError unless the labels are those of so many classes.

        Of labels without names only a whole training split (`whole`) has to show them all.
        """
        if self.named or whole or len(self.classes) > classes:
            refuse_other_classes(self.name, len(self.classes), classes)

    def describe(self, row: int) -> str:
        """Return the row's number in its split."""
        return f"in row {row} of {self.name}"


def _image_column(split: datasets.Dataset, name: str) -> str:
    for column in IMAGE_COLUMNS:
        if column in split.column_names:
            return column
    raise UserError(
        f"{name} has no column 'image' or 'img', only {', '.join(split.column_names)}: "
        "set task.path to a dataset of images with labels."
    )


def _undecoded(split: datasets.Dataset, column: str, name: str) -> datasets.Dataset:
    try:
        return split.cast_column(column, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"{name} has no images in its column '{column}' ({type(error).__name__}): set "
            "task.path to a dataset of images with labels."
        ) from error


def _labels(split: datasets.Dataset, name: str) -> Tensor:
    if LABEL_COLUMN not in split.column_names:
        raise UserError(
            f"{name} has no column 'label', only {', '.join(split.column_names)}: "
            "set task.path to a dataset of images with labels."
        )
    column = split.select_columns([LABEL_COLUMN]).with_format("numpy")[:][LABEL_COLUMN]
    if len(column) == 0:
        raise UserError(f"{name} has no rows: fetch the whole dataset.")
    if np.asarray(column).dtype.kind not in "iu" or np.asarray(column).ndim != 1:
        raise UserError(
            f"{name} has labels that are no whole numbers, or rows without one: give each image "
            "the number of its class in the column 'label'."
        )
    labels = torch.tensor(column, dtype=torch.int64)
    if labels.min() < 0:
        raise UserError(f"{name} has rows without a label (label -1): use a split with labels.")
    return labels


def _class_names(split: datasets.Dataset, labels: Tensor) -> list[str]:
    feature = split.features[LABEL_COLUMN]
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    return [str(label) for label in range(int(labels.max()) + 1)]
