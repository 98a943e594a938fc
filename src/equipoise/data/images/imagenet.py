"""ImageNet (ILSVRC 2012) from its published folders, or as a table from the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from equipoise.data.folders import holds_parquet, is_local, local_folder, required_path
from equipoise.data.hub import open_splits
from equipoise.data.images.encoded import EncodedImages
from equipoise.data.images.labelled import (
    SPLIT_NAMES,
    ImageFolder,
    ImageTable,
    counted_class_folders,
    split_among,
)
from equipoise.data.images.module import DecodingDataModule
from equipoise.data.images.splits import DecodedImages
from equipoise.data.images.transforms import (
    IMAGENET,
    Preprocessing,
    evaluation_transform,
    training_transform,
)
from equipoise.data.module import SplitName

WITHOUT_PATH = (
    "ImageNet must be downloaded: accept the licence of ILSVRC/imagenet-1k on the Hugging "
    "Face hub, log in and set task.path=ILSVRC/imagenet-1k, or set task.path to a folder "
    "with train/<synset>/*.JPEG and val/<synset>/*.JPEG."
)


@dataclass(kw_only=True, eq=False)
class ImageNet(DecodingDataModule):
    """Photographs as (3, image_size, image_size), decoded when they are needed.

    `path` is a folder with train/<synset>/*.JPEG and val/<synset>/*.JPEG, a folder of parquet
    files, or a name on the Hugging Face hub. Classes are the sorted synsets, or the table's own;
    there must be `classes` of them, one for each output of the network. Test is the validation
    split: the labels of the test images were never published. `augment` draws crops of random area
    and shape, and flips; otherwise training images are cropped in the centre like the others.
    """

    path: str | None = None
    batch_size: int = 128
    num_workers: int = 8
    augment: bool = True
    classes: int = 1000
    image_size: int = 224

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        self._published: Mapping[str, datasets.Dataset] = {}

    def inspect(self) -> dict[str, Any]:
        """Count the class folders before a run begins; determines no settings.

        Raises UserError if there are no images, or another number of classes. A table is checked
        only when it is read, since that may require fetching it.
        """
        path = required_path(self.path, WITHOUT_PATH)
        if _is_folder(path):
            counted_class_folders(local_folder(path), self.classes)
        return {}

    @property
    def preprocessing(self) -> Preprocessing:
        """The central pixels at `image_size`."""
        return Preprocessing(IMAGENET, evaluation_transform(self.image_size))

    def read_split(self, name: SplitName) -> DecodedImages:
        """Find the images of one split; raises UserError if it is not available."""
        source = self._source(name, required_path(self.path, WITHOUT_PATH))
        self.class_names = source.classes
        size, augmented = self.image_size, self.augment and name == "train"
        augmentation = training_transform(size) if augmented else None
        return DecodedImages(
            source, evaluation_transform(size), IMAGENET, self.seed, augmentation, self.cache_bytes
        )

    def _source(self, name: SplitName, path: str) -> EncodedImages:
        if _is_folder(path):
            return self._folder(name, local_folder(path))
        self._published = self._published or open_splits(path)
        names = SPLIT_NAMES["train" if name == "train" else "val"]
        table = ImageTable(*split_among(self._published, names, path))
        table.refuse_other_classes(self.classes, whole=name == "train")
        return table

    def _folder(self, name: SplitName, root: Path) -> ImageFolder:
        classes = counted_class_folders(root, self.classes)
        if name != "train":
            return ImageFolder(root / "val", classes)
        images = ImageFolder(root / "train", classes)
        images.refuse_empty_classes()
        return images


def _is_folder(path: str) -> bool:
    """Whether these are folders of images, not tables."""
    return is_local(path) and not holds_parquet(local_folder(path))
