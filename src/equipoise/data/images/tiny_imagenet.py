"""Tiny-ImageNet: 64 by 64 pixel photographs of two hundred classes, in its folders or a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch

from equipoise.data.folders import holds_parquet, is_local, local_folder, within
from equipoise.data.hub import open_splits
from equipoise.data.images.encoded import EncodedImages
from equipoise.data.images.labelled import (
    SPLIT_NAMES,
    ImageFiles,
    ImageFolder,
    ImageTable,
    counted_class_folders,
    split_among,
)
from equipoise.data.images.module import DecodingDataModule
from equipoise.data.images.splits import DecodedImages, Selection
from equipoise.data.images.transforms import Normalization, Preprocessing, whole_at
from equipoise.data.module import SplitName, check_fraction
from equipoise.data.sampling import stratified_split, stream
from equipoise.errors import UserError

INSIDE = "images"
ANNOTATIONS = "val_annotations.txt"
TINY_IMAGENET = Normalization(mean=(0.480, 0.448, 0.398), std=(0.277, 0.269, 0.282))


@dataclass(kw_only=True, eq=False)
class TinyImageNet(DecodingDataModule):
    """Photographs as (3, image_size, image_size), decoded when they are needed.

    `path` is the published folder, with train/<wnid>/images/*.JPEG, val/images/*.JPEG and
    val/val_annotations.txt, a folder of parquet files, or a name on the Hugging Face hub. Test is
    the published validation split: the labels of the test images were never published.
    `val_fraction` of the training images, drawn by `seed` and stratified by class, form the
    validation split; with 0 it is the test split.
    """

    path: str = "zh-plus/tiny-imagenet"
    batch_size: int = 128
    val_fraction: float = 0.02
    classes: int = 200
    image_size: int = 64

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        check_fraction("val_fraction", self.val_fraction)
        self._published: Mapping[str, datasets.Dataset] = {}

    def inspect(self) -> dict[str, Any]:
        """Count the class folders before a run begins; determines no settings.

        Raises UserError if they are missing or their number is not `classes`.
        """
        if self._is_folder():
            counted_class_folders(local_folder(self.path), self.classes)
        return {}

    @property
    def preprocessing(self) -> Preprocessing:
        """The whole picture at `image_size`."""
        return Preprocessing(TINY_IMAGENET, whole_at(self.image_size))

    def read_split(self, name: SplitName) -> DecodedImages:
        """Find the images of one split; raises UserError if it is not available."""
        from_test = name == "test" or (name == "val" and self.val_fraction == 0)
        published = self._source("val" if from_test else "train")
        self.class_names = published.classes
        rows = torch.arange(len(published.labels))
        if not from_test:
            train, val = stratified_split(published.labels, self.val_fraction, stream(self.seed))
            rows = train if name == "train" else val
        if len(rows) == 0:
            raise UserError(f"{self.path} has no images left for {name}: change task.val_fraction.")
        source = Selection((published, rows))
        return DecodedImages(
            source, whole_at(self.image_size), TINY_IMAGENET, self.seed,
            cache_bytes=self.cache_bytes,
        )  # fmt: skip

    def _is_folder(self) -> bool:
        """Whether these are folders of images, not tables."""
        return is_local(self.path) and not holds_parquet(local_folder(self.path))

    def _source(self, name: str) -> EncodedImages:
        if not self._is_folder():
            return self._table(name)
        root = local_folder(self.path)
        classes = counted_class_folders(root, self.classes)
        if name == "val":
            return annotated(root / "val", classes)
        images = ImageFolder(root / "train", classes, INSIDE)
        images.refuse_empty_classes()
        return images

    def _table(self, name: str) -> ImageTable:
        self._published = self._published or open_splits(self.path)
        names = SPLIT_NAMES["train" if name == "train" else "val"]
        table = ImageTable(*split_among(self._published, names, self.path))
        table.refuse_other_classes(self.classes, whole=name == "train")
        return table


def annotated(folder: Path, classes: list[str]) -> ImageFiles:
    """The images whose class is given in a file val_annotations.txt: name and wnid in each line.

    Raises UserError, which names the file, if it is missing or empty, or names another class.
    """
    file = folder / ANNOTATIONS
    try:
        text = within(file, folder).read_text(encoding="utf-8")
        lines = [line.split() for line in text.splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The file {file} cannot be read: unpack Tiny-ImageNet again.") from error
    pairs = [(str(Path(INSIDE, words[0])), words[1]) for words in lines if len(words) > 1]
    for name, _ in pairs:
        within(folder / name, folder)
    label_of = {name: label for label, name in enumerate(classes)}
    unknown = [name for _, name in pairs if name not in label_of]
    if unknown or not pairs:
        what = f"the class {unknown[0]}, which train lacks" if unknown else "no images"
        raise UserError(f"The file {file} names {what}: unpack Tiny-ImageNet again.")
    return ImageFiles(folder, [(name, label_of[wnid]) for name, wnid in pairs], classes)
