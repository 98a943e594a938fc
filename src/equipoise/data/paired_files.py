"""Finding the mask of every image in a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from equipoise.data.masked_files import ImageAndMask
from equipoise.errors import UserError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".gif")
MASK_MARK = "_mask"


def find_pairs(root: Path, split: str | None) -> list[ImageAndMask]:
    """Return the pairs of a split folder in the order of their names, or of `root` itself.

    A split lies in root/<split> or in root/images/<split> and root/masks/<split>; no pairs without
    such a folder. Raises UserError, which names the image, where a mask is missing.
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
    mask_of = {file.stem.removesuffix(MASK_MARK): file for file in _files(masks, MASK_ENDINGS)}
    return [_pair(image, mask_of, masks) for image in _files(images, IMAGE_ENDINGS)]


def _one_folder(folder: Path) -> list[ImageAndMask]:
    masks = [file for file in _files(folder, MASK_ENDINGS) if file.stem.endswith(MASK_MARK)]
    mask_of = {file.stem.removesuffix(MASK_MARK): file for file in masks}
    images = [file for file in _files(folder, IMAGE_ENDINGS) if file not in masks]
    return [_pair(image, mask_of, folder) for image in images]


def _pair(image: Path, mask_of: dict[str, Path], place: Path) -> ImageAndMask:
    mask = mask_of.get(image.stem)
    if mask is None:
        mark = MASK_MARK if place == image.parent else ""
        raise UserError(
            f"The image {image} has no mask {place / f'{image.stem}{mark}.png'}: add it, or take "
            "the image out."
        )
    return ImageAndMask(image, mask)


def _files(folder: Path, endings: Iterable[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in endings)
