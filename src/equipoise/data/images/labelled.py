"""Labelled images that are still compressed: one folder per class, or a table of the hub."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import torch
from torch import Tensor

from equipoise.data.folders import IMAGE_ENDINGS, file_stamp, files_in, folders_in, within
from equipoise.data.images.encoded import EncodedImages
from equipoise.data.images.module import refuse_other_classes
from equipoise.data.module import SplitName
from equipoise.errors import UserError
from equipoise.errors.sizes import bounded_bytes

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMN = "label"
SPLIT_NAMES: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""The names that folders and tables give the splits, in order of preference."""


class ImageFiles(EncodedImages):
    """Image files below `folder`, each with the number of its class, or -1 without one.

    found: for each its path, relative to the folder, and its label. classes: their names.
    """

    def __init__(self, folder: Path, found: Sequence[tuple[str, int]], classes: list[str]) -> None:
        self.folder = folder
        self.files = [file for file, _ in found]
        self.labels = torch.tensor([label for _, label in found], dtype=torch.int64)
        self.classes = classes

    def encoded(self, row: int) -> bytes:
        """The file contents of the image in a row."""
        return bounded_bytes(self.folder / self.files[row], "picture_bytes")

    def describe(self, row: int) -> str:
        """The path of the image in a row."""
        return str(self.folder / self.files[row])

    def stamp(self, row: int) -> Hashable:
        """Path, size and time of the file in a row."""
        return self.describe(row), *file_stamp(self.describe(row))

    def refuse_empty_classes(self) -> None:
        """Raise UserError, naming the folder, if a class has no image to learn it from."""
        counts = torch.bincount(self.labels, minlength=len(self.classes))
        for name, count in zip(self.classes, counts.tolist(), strict=True):
            if count == 0:
                raise UserError(
                    f"The class folder {self.folder / name} has no images: put some there, or "
                    "remove it."
                )


class ImageFolder(ImageFiles):
    """One split: `folder/<class>/<image>`, endings .jpg, .png and the like in any case.

    `classes` are the names that the labels index. If the folder of a class has a subfolder
    `inside`, its images are there. Raises UserError if the folder is missing, holds no images, or
    has a class that is not among `classes`.
    """

    def __init__(self, folder: Path, classes: list[str], inside: str = "") -> None:
        refuse_unknown(folder, class_folders(folder), classes)
        super().__init__(folder, labelled_files(folder, classes, inside), classes)


def labelled_files(folder: Path, classes: Sequence[str], inside: str = "") -> list[tuple[str, int]]:
    """The images in the class folders, and their labels, which index `classes`.

    Raises UserError if there are none, and for images of an unknown class.
    """
    by_class = images_by_class(folder, inside)
    refuse_unknown(folder, by_class, classes)
    label_of = {name: label for label, name in enumerate(classes)}
    if not by_class:
        raise UserError(
            f"The folder {folder} has no images: put them in "
            f"{os.path.join(folder, '<class>', inside).rstrip(os.sep)}."
        )
    return [(file, label_of[name]) for name, files in by_class.items() for file in files]


def images_by_class(folder: Path, inside: str = "") -> dict[str, list[str]]:
    """The paths of the images of each class folder that holds any, relative to `folder`.

    inside: see `ImageFolder`. Raises UserError if the folder is missing.
    """
    places = {name: folder / name / inside for name in class_folders(folder)}
    found = {
        name: [os.path.join(name, inside, file) for file in files_in(place, IMAGE_ENDINGS)]
        for name, place in places.items()
        if place.is_dir()
    }
    return {name: files for name, files in found.items() if files}


def class_folders(folder: Path) -> list[str]:
    """The sorted names of the class folders; raises UserError if the folder is missing.

    Folders that tools leave behind, hidden ones among them, are no classes.
    """
    if not folder.is_dir():
        raise UserError(
            f"The folder {folder} is missing: task.path must hold train/<class>/ and val/<class>/."
        )
    return folders_in(folder)


def refuse_unknown(place: Path | str, names: Iterable[str], classes: Collection[str]) -> None:
    """Raise UserError if a folder, or a table, has a class that is not among `classes`."""
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise UserError(
            f"{place} has the class {unknown[0]}, which the training images lack: "
            "give both the same classes."
        )


def counted_class_folders(root: Path, classes: int) -> list[str]:
    """The classes of root/train; raises DataDiffer unless the network has as many outputs."""
    names = class_folders(root / "train")
    refuse_other_classes(f"The folder {root / 'train'}", len(names), classes)
    return names


class ImageTable(EncodedImages):
    """One split of a hub dataset: a column `image` or `img`, and a column `label`.

    `image_column` names the column of images if it has another name. If the labels have no names,
    `classes` are their numbers up to the largest that occurs. Raises UserError if a column is
    missing or has another type, the split is empty, or a label is negative (which is how the hub
    marks a split whose labels are withheld). With `labelled` false all labels are -1, and there are
    no classes.
    """

    def __init__(
        self,
        split: datasets.Dataset,
        name: str,
        labelled: bool = True,
        image_column: str | None = None,
    ) -> None:
        self.name = name
        self.image_column = image_column or _image_column(split, name)
        self.rows = _undecoded(split, self.image_column, name)
        self.named = isinstance(split.features.get(LABEL_COLUMN), datasets.ClassLabel)
        self.labels = _labels(split, name) if labelled else torch.full((len(split),), -1)
        self.classes = _class_names(split, self.labels) if labelled else []

    def encoded(self, row: int) -> bytes:
        """The file contents of the image in a row, or of the dataset's file that the row names."""
        image = self.rows[row][self.image_column]
        if image is None:
            raise ValueError("the cell is empty")
        if image["bytes"] is not None:
            return bytes(image["bytes"])
        unpacked = Path(datasets.config.DOWNLOADED_DATASETS_PATH)
        return bounded_bytes(within(Path(image["path"]), unpacked), "picture_bytes")

    def stamp(self, row: int) -> Hashable:
        """A value that identifies the table, the column and the row."""
        return self.rows._fingerprint, self.image_column, row

    def refuse_other_classes(self, classes: int, whole: bool) -> None:
        """Raise UserError unless the labels are those of `classes` classes.

        For labels without names, only a whole training split (`whole`) has to contain all classes.
        """
        if self.named or whole or len(self.classes) > classes:
            refuse_other_classes(self.name, len(self.classes), classes)

    def describe(self, row: int) -> str:
        """The row's number in its split."""
        return f"in row {row} of {self.name}"


def split_among(
    published: Mapping[str, datasets.Dataset], names: Sequence[str], path: str
) -> tuple[datasets.Dataset, str]:
    """The first split that has one of the names, and how messages refer to it.

    Raises UserError, which names the available splits, if there is none.
    """
    for split in names:
        if split in published:
            return published[split], f"the split '{split}' of {path}"
    raise UserError(
        f"{path} has no split '{names[0]}', only {', '.join(published)}: "
        "set task.path to a dataset that has one."
    )


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
            f"{name} has labels that are not integers, or rows without one: give each image "
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
