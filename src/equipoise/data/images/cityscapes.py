"""Cityscapes: street scenes in nineteen classes, in its published folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from equipoise.data.folders import files_in, folders_in, local_folder, required_path, within
from equipoise.data.images.masked_files import IGNORED, ImageAndMask, MaskedFiles
from equipoise.data.images.masked_module import MaskedDataModule
from equipoise.data.module import SplitName
from equipoise.errors import UserError

IMAGES, MASKS = "leftImg8bit", "gtFine"
IMAGE_ENDING, MASK_ENDING = "_leftImg8bit.png", "_gtFine_labelIds.png"
PNG = (".png",)
LABEL_IDS = 34
WITHOUT_PATH = (
    "Cityscapes must be downloaded: register on its site, unpack leftImg8bit_trainvaltest "
    "and gtFine_trainvaltest into one folder and set task.path to it."
)

# The nineteen classes that count, by the id that the published masks give them.
CLASS_OF_ID = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
    19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train",
    32: "motorcycle", 33: "bicycle",
}  # fmt: skip

COLOURS = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
    (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
    (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
    (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip


@dataclass(kw_only=True, eq=False)
class Cityscapes(MaskedDataModule):
    """The folder `path` with leftImg8bit/{train,val,test}/<city>/<stem>_leftImg8bit.png.

    Masks are gtFine/{train,val}/<city>/<stem>_gtFine_labelIds.png; their 34 ids become 19 classes,
    all others 255. Test is validation, since the masks of the test images were never published.
    """

    batch_size: int = 12
    num_workers: int = 8
    crop: Sequence[int] = (512, 1024)
    scales: Sequence[float] = (0.5, 2.1)
    mask_classes: int = len(CLASS_OF_ID)

    def mask_numbers(self) -> Sequence[int]:
        """The label ids, as used in the published masks and by the benchmark's server."""
        return list(CLASS_OF_ID)

    def mask_colours(self) -> Sequence[tuple[int, int, int]]:
        """The published colours."""
        return COLOURS

    def find_files(self, name: SplitName) -> MaskedFiles:
        """Find the pairs of a split; raises UserError when there are none or a mask is missing."""
        self.class_names = list(CLASS_OF_ID.values())
        root = local_folder(required_path(self.path, WITHOUT_PATH))
        split = "train" if name == "train" else "val"
        images = _images(root / IMAGES / split)
        if not images:
            raise UserError(
                f"{root} has no images {IMAGES}/{split}/<city>/<name>{IMAGE_ENDING}: "
                "set task.path to a folder in the published layout of Cityscapes."
            )
        return MaskedFiles([_pair(root, split, image) for image in images], to_classes)


def to_classes(ids: Tensor, file: Path) -> Tensor:
    """Translate label ids (H, W), -1 or 255 (none) and 0 to 33; raises UserError for others."""
    ids = ids.masked_fill(ids == -1, IGNORED)
    unknown = (ids != IGNORED) & ((ids < 0) | (ids >= LABEL_IDS))
    if unknown.any():
        raise UserError(
            f"The mask {file} has the label id {int(ids[unknown][0])}, but those of Cityscapes "
            f"are 0 to {LABEL_IDS - 1}: use the file {MASK_ENDING}, not the coloured one."
        )
    table = torch.full((IGNORED + 1,), IGNORED)
    table[list(CLASS_OF_ID)] = torch.arange(len(CLASS_OF_ID))
    return table[ids]


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = [
        folder / city / name for city in folders_in(folder) for name in files_in(folder / city, PNG)
    ]
    return [file for file in files if file.name.endswith(IMAGE_ENDING)]


def _pair(root: Path, split: str, image: Path) -> ImageAndMask:
    stem = image.name.removesuffix(IMAGE_ENDING)
    mask = root / MASKS / split / image.parent.name / f"{stem}{MASK_ENDING}"
    if not within(mask, root).is_file():
        raise UserError(f"The image {image} has no mask {mask}: fetch {MASKS} as well.")
    return ImageAndMask(image, mask)
