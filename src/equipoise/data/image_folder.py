"""Labelled images in a folder with one folder a class, as ImageNet is published."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from equipoise.data.folders import IMAGE_ENDINGS, files_in, folders_in
from equipoise.errors import UserError


class ImageFolder:
    """One split: `folder/<class>/<image>`, endings .jpg, .png and the like in any case.

    `classes` are the names that the labels count. Raises UserError when the folder is missing,
    holds no images, or has a class that is not among `classes`.
    """

    def __init__(self, folder: Path, classes: list[str]) -> None:
        found = class_folders(folder)
        _refuse_unknown(folder, found, classes)
        self.folder = folder
        self.classes = classes
        self.files = [
            os.path.join(name, file)
            for name in found
            for file in files_in(folder / name, IMAGE_ENDINGS)
        ]
        if not self.files:
            raise UserError(
                f"The folder {folder} has no images: put them in {folder}{os.sep}<class>."
            )
        label_of = {name: label for label, name in enumerate(classes)}
        self.labels = torch.tensor([label_of[os.path.dirname(file)] for file in self.files])

    def encoded(self, row: int) -> bytes:
        """Return the file contents of the image in a row."""
        return (self.folder / self.files[row]).read_bytes()

    def describe(self, row: int) -> str:
        """Return the path of the image in a row."""
        return str(self.folder / self.files[row])

    def refuse_empty_classes(self) -> None:
        """Raise UserError, which names the folder, where a class has no image to learn it from."""
        counts = torch.bincount(self.labels, minlength=len(self.classes))
        for name, count in zip(self.classes, counts.tolist(), strict=True):
            if count == 0:
                raise UserError(
                    f"The class folder {self.folder / name} has no images: put some there, or "
                    "remove it."
                )


def class_folders(folder: Path) -> list[str]:
    """Return the sorted names of the class folders; raises UserError without the folder.

    Folders that tools leave behind, hidden ones among them, are no classes.
    """
    if not folder.is_dir():
        raise UserError(
            f"The folder {folder} is missing: task.path must hold train/<class>/ and val/<class>/."
        )
    return folders_in(folder)


def _refuse_unknown(folder: Path, found: list[str], classes: list[str]) -> None:
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise UserError(
            f"{folder} has the class {unknown[0]}, which the training images have not: "
            "give both the same class folders."
        )
