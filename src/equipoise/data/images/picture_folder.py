"""The user's own pictures, in class folders or in one folder without classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from equipoise.data.folders import (
    IMAGE_ENDINGS,
    files_in,
    folders_in,
    local_folder,
    required_path,
)
from equipoise.data.images.classified_pictures import LEAST_CLASSES, ClassifiedPictures
from equipoise.data.images.damage import Unusable
from equipoise.data.images.encoded import EncodedImages
from equipoise.data.images.labelled import (
    SPLIT_NAMES,
    ImageFiles,
    images_by_class,
    labelled_files,
    refuse_unknown,
)
from equipoise.data.images.own_pictures import Found, OwnPictures
from equipoise.data.module import SplitName
from equipoise.errors import DataDiffer, UserError

WITHOUT_PATH = (
    "This task needs pictures of your own: set task.path to a folder of pictures, or to one with "
    "<class>/<picture>, or with train/<class>/<picture>."
)
WITHOUT_CLASSES = (
    "This task needs pictures of your own: set task.path to a folder with <class>/<picture>, or "
    "with train/<class>/<picture> and perhaps val and test."
)


@dataclass(kw_only=True, eq=False)
class PictureFolder(OwnPictures):
    """Pictures in a folder, with or without classes.

    `path` holds train/<class>/* and perhaps val and test in the same layout, or <class>/* itself,
    or pictures without classes. Pictures without a class, including those beside class folders,
    have the label -1. A single class folder does not count as a class, since there is nothing to
    tell it from, and `classes` is then 0.
    """

    def find(self) -> Found:
        """Find the pictures of each split; raises UserError if there are none."""
        root = local_folder(required_path(self.path, WITHOUT_PATH))
        folders = split_folders(root)
        train = folders.get("train", root)
        names = list(images_by_class(train))
        classes = names if len(names) >= LEAST_CLASSES else []
        splits: dict[SplitName, EncodedImages] = {"train": with_or_without(train, classes)}
        if train != root:
            others = [name for name in folders if name != "train"]
            splits |= {name: with_or_without(folders[name], classes) for name in others}
        return Found(f"The folder {train}", splits)


@dataclass(kw_only=True, eq=False)
class ClassFolders(ClassifiedPictures):
    """Pictures in one folder for each class.

    `path` holds train/<class>/* and perhaps val and test in the same layout, or <class>/* itself.
    A class folder without pictures, or a picture outside the class folders, cannot be used;
    `damaged` says what happens then. A folder with only test/<class>/*, which may lack some
    classes, suffices to test a trained network.
    """

    def find(self) -> Found:
        """Find the pictures of each split; raises UserError if there are none."""
        root = local_folder(required_path(self.path, WITHOUT_CLASSES))
        folders = split_folders(root)
        if not folders or ("train" not in folders and images_by_class(root)):
            folders = {"train": root}
        train = folders.get("train")
        if train is None and self.names is None:
            raise UserError(
                f"The folder {root} has {' and '.join(f.name for f in folders.values())}, but no "
                "folder train to learn from: add one."
            )
        classes = list(self.names or [])
        if train is not None:
            classes = self._classes(train)
        splits: dict[SplitName, EncodedImages] = {}
        unusable: list[Unusable] = []
        for name, folder in folders.items():
            splits[name] = ImageFiles(folder, labelled_files(folder, classes), classes)
            unusable += misplaced(folder)
        return Found(f"The folder {train or root}", splits, unusable)

    def _classes(self, train: Path) -> list[str]:
        """The classes of the folder, in the order of `names`; raises DataDiffer if they differ."""
        found = list(images_by_class(train))
        if self.names is None:
            return found
        other = sorted(set(found) ^ set(self.names))
        if other:
            has = "has the class" if other[0] in found else "lacks the class"
            raise DataDiffer(
                f"The folder {train} {has} {other[0]}",
                f"task.names are {', '.join(self.names)}",
                "name the folders so, or change task.names",
            )
        return list(self.names)


def split_folders(root: Path) -> dict[SplitName, Path]:
    """The split folders in a folder, under any of their usual names."""
    there = set(folders_in(root))
    return {
        split: root / name
        for split, names in SPLIT_NAMES.items()
        for name in reversed(names)
        if name in there
    }


def with_or_without(folder: Path, classes: list[str]) -> ImageFiles:
    """All pictures in folder/<class>, and those in the folder itself with the label -1.

    Raises UserError if there are no pictures, or if `classes` is not empty and lacks one of the
    classes.
    """
    by_class = images_by_class(folder)
    if classes:
        refuse_unknown(folder, by_class, classes)
    label_of = {name: label for label, name in enumerate(classes)}
    found = [(f, label_of.get(name, -1)) for name, files in by_class.items() for f in files]
    found += [(file, -1) for file in files_in(folder, IMAGE_ENDINGS)]
    if not found:
        raise UserError(
            f"The folder {folder} has no pictures: put some there, with the endings "
            f"{', '.join(IMAGE_ENDINGS)}, in one folder for each class or in the folder itself."
        )
    return ImageFiles(folder, found, classes)


def misplaced(folder: Path) -> list[Unusable]:
    """What lies among the class folders without being one: empty folders, single pictures."""
    empty = sorted(set(folders_in(folder)) - set(images_by_class(folder)))
    stray = files_in(folder, IMAGE_ENDINGS)
    folders = [Unusable(str(folder / name), "it has no pictures", "folder") for name in empty]
    return folders + [
        Unusable(str(folder / name), "it is in no folder of a class") for name in stray
    ]
