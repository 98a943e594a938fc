"""Masks as files: each pixel's class in the dataset's colours, and drawn over the picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from equipoise.commands.predict.job import Job, whole_folder
from equipoise.commands.predict.table import Column
from equipoise.errors import UserError
from equipoise.report.plot import OPACITY, colour

FOLDER = "masks"
OVERLAYS = "overlays"
COLOURS = 256
"""Number of colours in a palette."""


class MaskFolder:
    """A folder masks/, and perhaps overlays/, with a PNG for each picture.

    Each pixel of a mask's PNG holds its class's number in the dataset's own masks; the palette has
    the dataset's colours. data: the data module. names: the classes' names.
    """

    def __init__(self, folder: Path, shown: Path, data: Any, names: Sequence[str], overlays: bool):
        self.folder, self.shown, self.names, self.overlays = folder, shown, names, overlays
        numbers = data.mask_numbers() or range(len(names))
        self.numbers = torch.tensor(list(numbers), dtype=torch.uint8)
        self.colours = torch.tensor(colours(data, len(names)), dtype=torch.uint8)
        self.palette = np.zeros((COLOURS, 3), np.uint8)
        self.palette[self.numbers.int().numpy()] = self.colours.numpy()
        self.files: set[PurePath] = set()

    def add(
        self, names: Sequence[str], masks: Sequence[Tensor], looks: Iterable[Tensor]
    ) -> dict[str, Column]:
        """Write the masks uint8 (H, W) of some pictures; returns their columns of the table.

        names: the pictures' file names. looks: the pictures, uint8 (1 or 3, H, W).
        """
        files = [self._free(PurePath(name)) for name in names]
        for file, mask, look in zip(files, masks, looks, strict=True):
            self._save(FOLDER, file, self._paletted(mask))
            if self.overlays:
                tinted = self.colours[mask.int()].permute(2, 0, 1).float()
                mixed = OPACITY * tinted + (1 - OPACITY) * look.float()
                rgb = mixed.round().to(torch.uint8).permute(1, 2, 0)
                self._save(OVERLAYS, file, Image.fromarray(rgb.numpy()))
        counts = [torch.bincount(m.flatten().int(), minlength=len(self.names)) for m in masks]
        pixels = torch.stack(counts).unbind(dim=1)
        columns: dict[str, Column] = {"mask": [str(self.shown / FOLDER / file) for file in files]}
        return columns | {
            f"pixels of {name}": count for name, count in zip(self.names, pixels, strict=True)
        }

    def _paletted(self, mask: Tensor) -> Image.Image:
        image = Image.fromarray(self.numbers[mask.int()].numpy()).convert("P")
        image.putpalette(self.palette.tobytes())
        return image

    def _save(self, folder: str, file: PurePath, image: Image.Image) -> None:
        path = self.folder / folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)

    def _free(self, name: PurePath) -> PurePath:
        """A unique name for the PNG of a picture."""
        plain = PurePath(*(part for part in name.parts if part not in (name.anchor, "..")))
        file = plain.with_suffix(".png")
        if file in self.files:
            file = plain.with_name(f"{plain.name}.png")
        self.files.add(file)
        return file


@contextmanager
def mask_folder(job: Job, data: Any, names: Sequence[str]) -> Iterator[MaskFolder]:
    """The folder of masks beside a table, named as the table is without its suffix.

    It appears only if all goes well. Raises UserError where it exists and may not be replaced,
    or holds files that `predict` did not write.
    """
    target = job.target.with_suffix("")
    if target.is_dir():
        others = sorted({entry.name for entry in target.iterdir()} - {FOLDER, OVERLAYS})
        if others:
            raise UserError(
                f"the masks go to the folder {target}, which holds {others[0]}: choose another "
                "output="
            )
    with whole_folder(target, job.request.overwrite) as unfinished:
        yield MaskFolder(unfinished, target, data, names, job.request.overlays)


def colours(data: Any, classes: int) -> Sequence[tuple[int, int, int]]:
    """The dataset's published colours, else those of the report."""
    published: Sequence[tuple[int, int, int]] | None = data.mask_colours()
    if published is not None:
        return published
    return [
        (round(255 * red), round(255 * green), round(255 * blue))
        for red, green, blue in map(colour, range(classes))
    ]
