"""STL-10: 96 by 96 pixel photographs of ten classes, and 100,000 without a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from equipoise.data.folders import holds_parquet, is_local, local_folder, required_path, within
from equipoise.data.hub import open_splits
from equipoise.data.images.encoded import LabelledPixels
from equipoise.data.images.labelled import ImageTable, split_among
from equipoise.data.images.module import DecodingDataModule
from equipoise.data.images.splits import DecodedImages, Selection
from equipoise.data.images.transforms import Normalization, Preprocessing
from equipoise.data.module import SplitName, check_fraction
from equipoise.data.sampling import stratified_split, stream
from equipoise.errors import UserError

SIZE = 96
SHAPE = (3, SIZE, SIZE)
FOLDER = "stl10_binary"
CLASSES = (
    "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck",
)  # fmt: skip
STL10 = Normalization(mean=(0.43, 0.42, 0.39), std=(0.27, 0.26, 0.27))
WITHOUT_PATH = (
    "STL-10 must be downloaded: unpack stl10_binary.tar.gz of its site and set task.path to the "
    "folder with stl10_binary, or set task.path to a dataset of the hub in the layout of CIFAR-10."
)


@dataclass(kw_only=True, eq=False)
class Stl10(DecodingDataModule):
    """Photographs as (3, image_size, image_size), mapped into memory.

    `path` is the folder with stl10_binary/{train_X,train_y,unlabeled_X,test_X,test_y}.bin, or that
    folder itself, a folder of parquet files, or a name on the Hugging Face hub. `val_fraction` of
    the labelled training images, drawn by `seed` and stratified by class, form the validation
    split; with 0 it is the test split. `unlabelled` adds the images without a class to the training
    split, with the label -1, as published; it has no effect on a table without such images. Images
    are resized to 70/64 of `image_size` and cropped in the centre.
    """

    path: str | None = None
    batch_size: int = 128
    val_fraction: float = 0.1
    unlabelled: bool = True
    classes: int = 10
    image_size: int = 64

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        check_fraction("val_fraction", self.val_fraction)
        self._published: Mapping[str, datasets.Dataset] = {}

    @property
    def preprocessing(self) -> Preprocessing:
        """The central pixels of the image resized to 70/64 of `image_size`."""
        return Preprocessing(STL10, central(self.image_size))

    def read_split(self, name: SplitName) -> DecodedImages:
        """Find the images of one split; raises UserError if it is not available."""
        path = required_path(self.path, WITHOUT_PATH)
        from_test = name == "test" or (name == "val" and self.val_fraction == 0)
        published = self._source("test" if from_test else "train", path)
        parts = [(published, torch.arange(len(published.labels)))]
        if not from_test:
            train, val = stratified_split(published.labels, self.val_fraction, stream(self.seed))
            parts = [(published, train if name == "train" else val)]
        if name == "train" and self.unlabelled:
            rest = self._unlabelled(path)
            parts += [(rest, torch.arange(len(rest.labels)))] if rest is not None else []
        self.class_names = published.classes
        if len(parts[0][1]) == 0:
            raise UserError(f"{path} has no images left for {name}: change task.val_fraction.")
        return DecodedImages(
            Selection(*parts), central(self.image_size), STL10, self.seed,
            cache_bytes=self.cache_bytes,
        )  # fmt: skip

    def _source(self, name: str, path: str) -> LabelledPixels:
        folder = binary_folder(path)
        if folder is not None:
            return BinaryImages(folder / f"{name}_X.bin", folder / f"{name}_y.bin")
        table = ImageTable(*split_among(self._tables(path), (name,), path))
        table.refuse_other_classes(self.classes, whole=name == "train")
        return table

    def _unlabelled(self, path: str) -> LabelledPixels | None:
        folder = binary_folder(path)
        if folder is not None:
            return BinaryImages(folder / "unlabeled_X.bin", None)
        for name in ("unlabeled", "unlabelled"):
            if name in self._tables(path):
                place = f"the split '{name}' of {path}"
                return ImageTable(self._tables(path)[name], place, labelled=False)
        return None

    def _tables(self, path: str) -> Mapping[str, datasets.Dataset]:
        self._published = self._published or open_splits(path)
        return self._published


def central(size: int) -> v2.Transform:
    """The central `size` pixels after resizing the shorter side to 70/64 of it."""
    return v2.Compose([v2.Resize(round(size * 70 / 64)), v2.CenterCrop(size)])


class BinaryImages:
    """Images in a published file of bytes, column by column, and labels 1 to 10 in another.

    Without a label file all labels are -1. Raises UserError, which names the file, if one is
    missing or truncated, or if the two do not match.
    """

    def __init__(self, images: Path, labels: Path | None) -> None:
        self.classes = list(CLASSES)
        try:
            stored = np.memmap(within(images, images.parent), np.uint8, "r")
            numbers = None if labels is None else within(labels, labels.parent).read_bytes()
        except (OSError, ValueError) as error:  # ValueError for an empty file
            raise UserError(
                f"The file {images if labels is None else f'{images} or {labels}'} cannot be read: "
                "unpack stl10_binary.tar.gz again, or set task.unlabelled=false if only "
                "unlabeled_X.bin is missing."
            ) from error
        count, rest = divmod(len(stored), SIZE * SIZE * 3)
        if rest:
            raise UserError(f"The file {images} is cut off after {count} images: unpack it again.")
        self.images = stored.reshape(count, *SHAPE)
        self.labels = torch.full((count,), -1)
        if numbers is not None:
            self.labels = torch.frombuffer(bytearray(numbers), dtype=torch.uint8).long() - 1
        foreign = ((self.labels < 0) | (self.labels >= len(CLASSES))).any() and labels is not None
        if len(self.labels) != count or foreign:
            raise UserError(
                f"The file {labels} has {len(self.labels)} labels from "
                f"{int(self.labels.min()) + 1} to {int(self.labels.max()) + 1}, and {images} has "
                f"{count} images of 10 classes: unpack both again."
            )

    def pixels(self, row: int) -> Tensor:
        """The image of a row, uint8 (3, 96, 96)."""
        return torch.from_numpy(self.images[row].transpose(0, 2, 1).copy())


def binary_folder(path: str) -> Path | None:
    """The folder of the published files; None for a table. Raises UserError if it is neither."""
    if not is_local(path):
        return None
    root = local_folder(path)
    for folder in (root / FOLDER, root):
        if (folder / "train_X.bin").is_file() or (folder / "test_X.bin").is_file():
            return folder
    if holds_parquet(root):
        return None
    raise UserError(
        f"The folder {path} has neither {FOLDER}/train_X.bin nor parquet files: set task.path to "
        "the unpacked STL-10."
    )
