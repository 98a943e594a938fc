"""Pictures of the user's own, in folders of classes or in one folder without any."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from equipoise.data.folders import (
    IMAGE_ENDINGS,
    files_in,
    folders_in,
    local_folder,
    required_path,
)
from equipoise.data.images.labelled import ImageFiles
from equipoise.data.images.module import ImageDataModule, refuse_other_classes
from equipoise.data.images.splits import DecodedImages, Selection
from equipoise.data.images.transforms import IMAGENET, Preprocessing, evaluation_transform
from equipoise.data.module import SplitName, check_fraction
from equipoise.data.sampling import stratified_split, stream
from equipoise.errors import UserError

LEAST_CLASSES = 2
WITHOUT_PATH = (
    "This task needs pictures of your own: set task.path to a folder of pictures, or to one with "
    "<class>/<picture>, or with train/<class>/<picture>."
)


class Found(NamedTuple):
    """The pictures below a folder and the names of their classes, none where there are none."""

    files: list[str]
    labels: list[int]
    classes: list[str]


@dataclass(kw_only=True, eq=False)
class PictureFolder(ImageDataModule):
    """Pictures of any size and mode as (3, image_size, image_size), decoded anew for each batch.

    `path` holds train/<class>/* and perhaps val and test in the same layout, or <class>/* itself,
    or pictures without classes, whose labels are -1; so are those of pictures beside the folders of
    classes. Where there is no folder test or val, `test_fraction` of the pictures and
    `val_fraction` of the others are drawn by `seed`, with the same mixture of classes. Without a
    test split, test is validation, and the other way round. `classes` null: counted, 0 where there
    are none.
    """

    path: str | None = None
    batch_size: int = 64
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    classes: int | None = None
    image_size: int = 64

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        check_fraction("val_fraction", self.val_fraction)
        check_fraction("test_fraction", self.test_fraction)

    def inspect(self) -> dict[str, Any]:
        """Find all pictures before a run begins; {"classes": their number}, if null.

        Raises UserError where there are no pictures, or classes of another number.
        """
        root = self._root()
        classes = find_pictures(training_folder(root)).classes
        if self.classes is None:
            return {"classes": len(classes)}
        refuse_other_classes(f"The folder {training_folder(root)}", len(classes), self.classes)
        return {}

    @property
    def preprocessing(self) -> Preprocessing:
        """The central pixels at `image_size`."""
        return Preprocessing(IMAGENET, evaluation_transform(self.image_size))

    def read_split(self, name: SplitName) -> DecodedImages:
        """Find the pictures of one split; raises UserError when there are none."""
        root = self._root()
        found = find_pictures(training_folder(root))
        self.class_names = found.classes
        source = self._splits(root, found)[name]
        if source is None or len(source.labels) == 0:
            raise UserError(
                f"{root} has no pictures for {name}: add some, or change task.val_fraction and "
                "task.test_fraction."
            )
        return DecodedImages(source, evaluation_transform(self.image_size), IMAGENET, self.seed)

    def _root(self) -> Path:
        return local_folder(required_path(self.path, WITHOUT_PATH))

    def _splits(self, root: Path, found: Found) -> dict[SplitName, Selection | None]:
        train = ImageFiles(training_folder(root), found.files, found.labels, found.classes)
        rows = torch.arange(len(train.labels))
        parts: dict[str, Selection] = {}
        for name, fraction, purpose in (
            ("test", self.test_fraction, 5),
            ("val", self.val_fraction, 6),
        ):
            if training_folder(root) != root and (root / name).is_dir():
                own = find_pictures(root / name, found.classes)
                files = ImageFiles(root / name, own.files, own.labels, found.classes)
                parts[name] = Selection((files, torch.arange(len(files.labels))))
            elif fraction > 0:
                kept, held = _hold_out(train, rows, fraction, purpose, self.seed)
                rows = kept
                parts |= {name: Selection((train, held))} if len(held) else {}
        test, val = parts.get("test"), parts.get("val")
        return {"train": Selection((train, rows)), "val": val or test, "test": test or val}


def _hold_out(
    train: ImageFiles, rows: torch.Tensor, fraction: float, purpose: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows that stay and those held out; of pictures with classes only, where there are any."""
    labels = train.labels[rows]
    eligible = labels >= 0 if train.classes else torch.ones_like(labels, dtype=torch.bool)
    candidates = rows[eligible]
    kept, held = stratified_split(train.labels[candidates], fraction, stream(seed, purpose))
    return torch.cat([candidates[kept], rows[~eligible]]), candidates[held]


def training_folder(root: Path) -> Path:
    """The folder `train` in it, or the folder itself."""
    return root / "train" if (root / "train").is_dir() else root


def find_pictures(folder: Path, classes: list[str] | None = None) -> Found:
    """All pictures in folder/<class> and in the folder itself, those with the label -1.

    A single class is none, since there is nothing to tell it from. classes: those of the training
    pictures; None: the folders are them. Raises UserError without pictures, and for a class that is
    not among them.
    """
    inside = {name: files_in(folder / name, IMAGE_ENDINGS) for name in folders_in(folder)}
    inside = {name: files for name, files in inside.items() if files}
    if classes is None:
        classes = list(inside) if len(inside) >= LEAST_CLASSES else []
    label_of = {name: label for label, name in enumerate(classes)}
    unknown = [name for name in inside if classes and name not in label_of]
    if unknown:
        raise UserError(
            f"{folder} has the class {unknown[0]}, which the training pictures lack: give both the "
            "same folders of classes."
        )
    found = [(os.path.join(n, file), label_of.get(n, -1)) for n in inside for file in inside[n]]
    found += [(file, -1) for file in files_in(folder, IMAGE_ENDINGS)]
    if not found:
        raise UserError(
            f"The folder {folder} has no pictures: put some there, with the endings "
            f"{', '.join(IMAGE_ENDINGS)}, in one folder for each class or in the folder itself."
        )
    return Found([file for file, _ in found], [label for _, label in found], classes)
