"""Segmentation of any images: a folder of images and masks side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equipoise.data.folders import IMAGE_ENDINGS, files_in, local_folder, required_path
from equipoise.data.images.masked_files import (
    BLACK_AND_WHITE,
    IGNORED,
    ImageAndMask,
    MaskedFiles,
    MaskValues,
    check_mask_values,
    only_black_and_white,
    progress,
    translate,
)
from equipoise.data.images.masked_module import MaskedDataModule
from equipoise.data.module import SPLITS, SplitName, check_fraction
from equipoise.data.sampling import stream
from equipoise.errors import UserError

MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".gif")
MASK_MARK = "_mask"
WITHOUT_PATH = (
    "task=segmentation_folder needs images of your own: set task.path to a folder with "
    "images/<name>.jpg and masks/<name>.png."
)


@dataclass(kw_only=True, eq=False)
class SegmentationFolder(MaskedDataModule):
    """Images and masks in `path`: images/<stem>.jpg with masks/<stem>.png, or both in one folder.

    In one folder the mask of <stem>.jpg is <stem>_mask.png. Subfolders train, val and test (or
    images/train, masks/train, ...) are the splits; without a train folder, `val_fraction` and
    `test_fraction` of all samples are drawn by `seed`. Without a test split, test is validation,
    and without a validation split, validation is drawn from the training samples. A mask holds the
    class numbers 0, 1, ..., as grey values or palette indices, and 255 where a pixel does not
    count. `mask_classes` null: counted, one more than the largest number in any mask. `mask_values`
    gives the number of each class if they differ; null: masks that hold only 0 and 255 have two
    classes, all others are numbered as above.
    """

    batch_size: int = 8
    num_workers: int = 8
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    mask_classes: int | None = None
    mask_values: Sequence[int] | None = None
    crop: Sequence[int] = (192, 256)
    scales: Sequence[float] = (0.9, 1.2)

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        check_fraction("val_fraction", self.val_fraction)
        check_fraction("test_fraction", self.test_fraction)
        if self.mask_classes is not None and not 2 <= self.mask_classes <= IGNORED:
            raise UserError(f"task.mask_classes is {self.mask_classes}: set it to 2 to {IGNORED}.")
        if self.mask_values is not None:
            check_mask_values(self.mask_values, self.mask_classes)

    def inspect(self) -> dict[str, Any]:
        """Check all files, and determine the classes and numbers of the masks if they are not set.

        Raises UserError, which names the file, if one is missing or does not fit.
        """
        super().inspect()
        if self.mask_values is not None:
            return {"mask_classes": len(self.mask_values)}
        pairs = sorted({pair for name in SPLITS for pair in self.find_files(name).pairs})
        if self.mask_classes is None:
            return self._counted(pairs)
        if not only_black_and_white(pair.mask for pair in pairs):
            return {}
        if self.mask_classes != len(BLACK_AND_WHITE):
            raise UserError(
                f"The masks of {self.path} hold only 0 and {IGNORED}, which are two classes, but "
                f"task.mask_classes is {self.mask_classes}: set it to 2."
            )
        return {"mask_values": list(BLACK_AND_WHITE)}

    def mask_numbers(self) -> Sequence[int] | None:
        """Those of `mask_values`, if the masks have numbers of their own."""
        return self.mask_values

    def find_files(self, name: SplitName) -> MaskedFiles:
        """Find the pairs of a split; raises UserError if there are none or one is incomplete."""
        root = local_folder(required_path(self.path, WITHOUT_PATH))
        pairs = self._splits(root)[name]
        if not pairs:
            raise UserError(
                f"{root} has no samples for {name}: add some, or change task.val_fraction and "
                "task.test_fraction."
            )
        return MaskedFiles(pairs, self.to_classes)

    def to_classes(self, ids: Tensor, file: Path) -> Tensor:
        """The class of each pixel; raises UserError for a number that is not a class."""
        if self.mask_values is not None:
            return translate(ids, self.mask_values, file)
        classes = IGNORED if self.mask_classes is None else self.mask_classes
        unknown = (ids != IGNORED) & ((ids < 0) | (ids >= classes))
        if unknown.any():
            raise UserError(
                f"The mask {file} has the class number {int(ids[unknown][0])}, but with "
                f"{classes} classes they are 0 to {classes - 1} and {IGNORED} for ignored "
                "pixels: correct the mask, or set task.mask_classes."
            )
        return ids

    def _counted(self, pairs: Sequence[ImageAndMask]) -> dict[str, Any]:
        values = MaskValues()
        for pair in progress(pairs, "Counting classes"):
            values.add(pair.mask)
        if values.black_and_white:
            return {"mask_classes": 2, "mask_values": list(BLACK_AND_WHITE)}
        return {"mask_classes": values.classes(Path(str(self.path)))}

    def _splits(self, root: Path) -> dict[SplitName, list[ImageAndMask]]:
        folders = {name: find_pairs(root, name) for name in SPLITS}
        train = folders["train"] or find_pairs(root, None)
        test, val = folders["test"], folders["val"]
        if not folders["train"]:
            train, test = self._hold_out(train, self.test_fraction, 5)
        if not val:
            train, val = self._hold_out(train, self.val_fraction, 6)
        val = val or test
        return {"train": train, "val": val, "test": test or val}

    def _hold_out(
        self, pairs: list[ImageAndMask], fraction: float, purpose: int
    ) -> tuple[list[ImageAndMask], list[ImageAndMask]]:
        order = torch.randperm(len(pairs), generator=stream(self.seed, purpose)).tolist()
        count = round(fraction * len(pairs))
        held = set(order[: max(count, 1) if fraction > 0 and len(pairs) > 1 else 0])
        return (
            [pair for row, pair in enumerate(pairs) if row not in held],
            [pair for row, pair in enumerate(pairs) if row in held],
        )


def find_pairs(root: Path, split: str | None) -> list[ImageAndMask]:
    """The pairs of a split folder in the order of their names, or of `root` itself.

    A split lies in root/<split> or in root/images/<split> and root/masks/<split>; without such a
    folder it has no pairs. Raises UserError, which names the file, if a mask is missing, or if two
    images or two masks have the same name.
    """
    for images, masks in _places(root, split):
        if images.is_dir():
            pairs = _two_folders(images, masks) if images != masks else _one_folder(images)
            if pairs:
                return pairs
    return []


def _places(root: Path, split: str | None) -> Sequence[tuple[Path, Path]]:
    if split is None:
        return [(root / "images", root / "masks"), (root, root)]
    inside = root / split
    return [
        (inside / "images", inside / "masks"),
        (root / "images" / split, root / "masks" / split),
        (inside, inside),
    ]


def _two_folders(images: Path, masks: Path) -> list[ImageAndMask]:
    mask_of = _by_name(_files(masks, MASK_ENDINGS))
    return [_pair(image, mask_of, masks) for image in _images(_files(images, IMAGE_ENDINGS))]


def _one_folder(folder: Path) -> list[ImageAndMask]:
    masks = [file for file in _files(folder, MASK_ENDINGS) if file.stem.endswith(MASK_MARK)]
    images = [file for file in _files(folder, IMAGE_ENDINGS) if file not in masks]
    return [_pair(image, _by_name(masks), folder) for image in _images(images)]


def _images(files: Sequence[Path]) -> Iterable[Path]:
    """The files; a picture that is there twice would be both trained and tested on."""
    seen: dict[str, Path] = {}
    for file in files:
        _refuse_twin(seen, file.stem, file)
    return files


def _by_name(masks: Sequence[Path]) -> dict[str, Path]:
    mask_of: dict[str, Path] = {}
    for file in masks:
        _refuse_twin(mask_of, file.stem.removesuffix(MASK_MARK), file)
    return mask_of


def _refuse_twin(seen: dict[str, Path], name: str, file: Path) -> None:
    if name in seen:
        raise UserError(
            f"{seen[name]} and {file} have the same name, so it is not clear which image belongs "
            "to which mask: rename or remove one of them."
        )
    seen[name] = file


def _pair(image: Path, mask_of: dict[str, Path], place: Path) -> ImageAndMask:
    mask = mask_of.get(image.stem)
    if mask is None:
        mark = MASK_MARK if place == image.parent else ""
        raise UserError(
            f"The image {image} has no mask {place / f'{image.stem}{mark}.png'}: add it, or take "
            "the image out."
        )
    return ImageAndMask(image, mask)


def _files(folder: Path, endings: Collection[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return [folder / name for name in files_in(folder, endings)]
