"""Finding the mask of every image in a folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from equipoise.data.folders import IMAGE_ENDINGS, files_in
from equipoise.data.masked_files import ImageAndMask
from equipoise.errors import UserError

MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".gif")
MASK_MARK = "_mask"


def find_pairs(root: Path, split: str | None) -> list[ImageAndMask]:
    """Return the pairs of a split folder in the order of their names, or of `root` itself.

    A split lies in root/<split> or in root/images/<split> and root/masks/<split>; no pairs without
    such a folder. Raises UserError, which names the file, where a mask is missing or where two
    images or two masks have one name.
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
    """The files; a picture that lies there twice would be trained on and tested on."""
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
            f"{seen[name]} and {file} have one name, so that it is not clear which image belongs "
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
