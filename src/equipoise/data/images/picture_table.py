"""Any dataset of labelled pictures in the layout of the Hugging Face hub, by its columns."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch

from equipoise.data.folders import required_path
from equipoise.data.hub import open_splits
from equipoise.data.images.classified_pictures import ClassifiedPictures
from equipoise.data.images.encoded import EncodedImages
from equipoise.data.images.labelled import (
    LABEL_COLUMN,
    SPLIT_NAMES,
    ImageTable,
    refuse_unknown,
    split_among,
)
from equipoise.data.images.own_pictures import Found
from equipoise.data.module import SplitName
from equipoise.errors import UserError

WITHOUT_PATH = (
    "This task needs a dataset: set task.path to a name on the Hugging Face hub, or to a folder of "
    "parquet files, and task.image_column and task.label_column to its columns."
)
LABELS = (str, int)  # bool is a subclass of int


@dataclass(kw_only=True, eq=False)
class PictureTable(ClassifiedPictures):
    """Pictures in a column of a table, with labels of any kind in another.

    `path` is a name on the Hugging Face hub or a folder of parquet files, `configuration` that of a
    hub dataset if it has several. `image_column` null: image or img. Labels are numbers of named
    classes, or any integers, texts or booleans, whose distinct values in the training split,
    sorted, are the classes. A row without a label cannot be used; a test or validation split
    without any labels (they may be withheld) is left out with a warning.
    """

    configuration: str | None = None
    image_column: str | None = None
    label_column: str = LABEL_COLUMN

    def find(self) -> Found:
        """Fetch the splits and read their labels; raises UserError for unsuitable columns."""
        path = required_path(self.path, WITHOUT_PATH)
        published = open_splits(path, self.configuration)
        split, place = split_among(published, SPLIT_NAMES["train"], path)
        train = self._table(split, place, self.names)
        splits: dict[SplitName, EncodedImages] = {"train": train}
        for name in ("val", "test"):
            if not set(SPLIT_NAMES[name]) & set(published):
                continue
            other = self._table(*split_among(published, SPLIT_NAMES[name], path), train.classes)
            if len(other.labels) and bool((other.labels < 0).all()):
                warnings.warn(f"{other.name} has no labels and is not used", stacklevel=2)
            else:
                splits[name] = other
        return Found(place, splits)

    def _table(
        self, split: datasets.Dataset, place: str, classes: Sequence[str] | None
    ) -> LabelledTable:
        return LabelledTable(split, place, self.image_column, self.label_column, classes)


class LabelledTable(ImageTable):
    """One split of a dataset with a column of images and one of labels of any kind.

    classes: their names, in the order of the labels; None: the names in the column's feature, or
    else its distinct values, sorted. Raises UserError if a column is missing or has another type,
    and for a label that is not one of the classes.
    """

    def __init__(
        self,
        split: datasets.Dataset,
        name: str,
        image_column: str | None,
        label_column: str,
        classes: Sequence[str] | None,
    ) -> None:
        for column, key in ((image_column, "image_column"), (label_column, "label_column")):
            if column is not None and column not in split.column_names:
                raise UserError(
                    f"{name} has no column '{column}', only {', '.join(split.column_names)}: set "
                    f"task.{key} to one of them."
                )
        super().__init__(split, name, labelled=False, image_column=image_column)
        feature = split.features[label_column]
        values = split.select_columns([label_column])[:][label_column]
        if isinstance(feature, datasets.ClassLabel):
            values = [feature.names[v] if v is not None and v >= 0 else None for v in values]
            found = list(feature.names)
        else:
            self._check(values, label_column)
            found = [str(value) for value in sorted({v for v in values if v is not None})]
        self.classes = found if classes is None else list(classes)
        there = {str(value) for value in values if value is not None}
        refuse_unknown(name, there, self.classes)
        label_of = {name: label for label, name in enumerate(self.classes)}
        numbers = [-1 if value is None else label_of[str(value)] for value in values]
        self.labels = torch.tensor(numbers, dtype=torch.int64)

    def encoded(self, row: int) -> bytes:
        """The file contents of the image in a row; raises ValueError if it has no label."""
        if self.labels[row] < 0:
            raise ValueError("it has no label")
        return super().encoded(row)

    def _check(self, values: Sequence[Any], column: str) -> None:
        kinds = {type(value) for value in values if value is not None}
        if not all(issubclass(kind, LABELS) for kind in kinds):
            raise UserError(
                f"{self.name} has labels in its column '{column}' that cannot be classes, such as "
                f"{next(v for v in values if v is not None)!r}: set task.label_column to a column "
                "of integers, texts or truth values."
            )
