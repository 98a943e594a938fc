"""Where the pictures for a trained network come from, and batches of them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.data.folders import IMAGE_ENDINGS, named
from equipoise.data.images.encoded import reason
from equipoise.data.images.labelled import ImageTable
from equipoise.data.images.pictures import Picture, as_pixels, pictures_below
from equipoise.data.loading import Batch
from equipoise.data.sampling import BatchIndex
from equipoise.errors import TooLarge, UserError
from equipoise.errors.sizes import check_arrays, check_parquet


class Pictures(Protocol):
    """Pictures of any size, by row."""

    def pixels(self, row: int) -> Tensor:
        """The picture of a row, uint8 (C, H, W); raises UserError naming a damaged one."""
        ...

    def describe(self, row: int) -> str:
        """How the user refers to it."""
        ...

    def __len__(self) -> int:
        """The number of pictures."""
        ...


@dataclass(frozen=True, eq=False)
class GivenPictures:
    """Pictures as Python holds them, or their paths."""

    pictures: Sequence[Picture]

    def pixels(self, row: int) -> Tensor:
        """The picture of a row; raises UserError if it is not a picture."""
        return as_pixels(self.pictures[row])

    def describe(self, row: int) -> str:
        """The path if it is a file, otherwise the row."""
        picture = self.pictures[row]
        return str(picture) if isinstance(picture, str | Path) else str(row)

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.pictures)


@dataclass(frozen=True, eq=False)
class TablePictures:
    """The pictures of a parquet file in the hub's layout."""

    table: ImageTable
    file: Path

    def pixels(self, row: int) -> Tensor:
        """The picture of a row; raises UserError naming a damaged one."""
        return self.table.pixels(row)

    def describe(self, row: int) -> str:
        """The file, and the row in it."""
        return f"{self.file}:{row}"

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.table.labels)


@dataclass(frozen=True, eq=False)
class ArrayPictures:
    """The pictures of a numpy file, mapped into memory if it holds a single array."""

    array: NDArray[np.uint8]
    file: Path

    def pixels(self, row: int) -> Tensor:
        """The picture of a row; raises UserError if it is not a picture."""
        return as_pixels(np.array(self.array[row]))

    def describe(self, row: int) -> str:
        """The file, and the row in it."""
        return f"{self.file}:{row}"

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.array)


def opened_pictures(files: Sequence[Path]) -> Pictures:
    """The pictures in files or folders: image files, arrays (.npy, .npz) or a table.

    Raises UserError if one does not exist, a folder has none, or an array or table is not alone.
    """
    for file in files:
        if not file.exists():
            raise UserError(f"there is no file or folder {file}")
    stored = [file for file in files if file.suffix.lower() in READERS and not file.is_dir()]
    if stored and len(files) > 1:
        raise UserError(f"{stored[0]} holds many pictures: give it alone")
    if stored:
        return READERS[stored[0].suffix.lower()](stored[0])
    found = [p for file in files for p in (pictures_below(file) if file.is_dir() else [file])]
    if not found:
        raise UserError(
            f"{', '.join(map(str, files)) or 'nothing'} holds no pictures: give files or folders "
            f"with the endings {', '.join(IMAGE_ENDINGS)}, or one file .npy, .npz or .parquet"
        )
    return GivenPictures(found)


def _array(file: Path) -> ArrayPictures:
    try:
        content = np.load(file, mmap_mode="r", allow_pickle=False)
        if not isinstance(content, np.ndarray):
            check_arrays(file)
            names = content.files
            name = next((n for n in ("images", "image", "x", *names) if n in names), "")
            content = content[name]
    except TooLarge:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} cannot be read as an array: write it with numpy.save") from error
    if content.ndim not in (3, 4) or content.dtype != np.uint8 or not len(content):
        raise UserError(
            f"{file} holds {content.dtype} of shape {content.shape}: several pictures are uint8 of "
            "shape (N, H, W), (N, H, W, 3) or (N, 3, H, W), from 0 to 255"
        )
    return ArrayPictures(content, file)


def _table(file: Path) -> TablePictures:
    try:
        check_parquet(file)
        named(file.parent)  # the folder of the files that the table may refer to
        split = datasets.Dataset.from_parquet(str(file), keep_in_memory=False)
    except TooLarge:
        raise
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"the table {file} cannot be read: {reason(error)}") from error
    assert isinstance(split, datasets.Dataset)
    return TablePictures(ImageTable(split, str(file), labelled=False), file)


READERS: dict[str, Callable[[Path], Pictures]] = {
    ".npy": _array, ".npz": _array, ".parquet": _table,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class PictureBatches:
    """What a network sees of pictures, one batch at a time.

    preprocess: transforms one picture. skip: leave damaged ones out instead of raising UserError.
    """

    pictures: Pictures
    preprocess: Callable[[Tensor], Tensor]
    skip: bool = False

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.pictures)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """{"image" (B, C, H, W), "shape" and "size" (B, 2), "index" (B,)} of the rows in `index`.

        Images of several shapes are padded to the largest; `shape` is the shape of each, and `size`
        the picture's height and width. Rows of damaged pictures are missing.
        """
        rows, images, sizes = list[int](), list[Tensor](), list[tuple[int, int]]()
        for row in index.rows.tolist():
            try:
                pixels = self.pictures.pixels(row)
            except UserError:
                if self.skip:
                    continue
                raise
            rows.append(row)
            images.append(self.preprocess(pixels))
            sizes.append((pixels.shape[1], pixels.shape[2]))
        if not rows:
            return {name: torch.empty(0, 2) for name in ("image", "shape", "size", "index")}
        shapes = torch.tensor([image.shape[1:] for image in images])
        image = images[0].new_zeros(len(rows), len(images[0]), *shapes.amax(dim=0).tolist())
        for place, part in zip(image, images, strict=True):
            place[:, : part.shape[1], : part.shape[2]] = part
        return {
            "image": image, "shape": shapes, "size": torch.tensor(sizes),
            "index": torch.tensor(rows),
        }  # fmt: skip


def of_one_shape(batch: Batch) -> Sequence[Batch]:
    """Split a `PictureBatches` batch into parts whose images have one shape, without padding.

    A batch without "shape" stays as it is.
    """
    if "shape" not in batch:
        return [batch]
    if not len(batch["index"]):
        return []
    _, counts = torch.unique_consecutive(batch["shape"], dim=0, return_counts=True)
    parts = zip(*(torch.split(v, counts.tolist()) for v in batch.values()), strict=True)
    named = [dict(zip(batch, part, strict=True)) for part in parts]
    return [{**p, "image": p["image"][..., : p["shape"][0, 0], : p["shape"][0, 1]]} for p in named]
