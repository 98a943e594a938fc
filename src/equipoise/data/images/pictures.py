"""Pictures as a user has them in Python: paths, PIL images, arrays; and the files in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from equipoise.data.folders import IMAGE_ENDINGS, files_in, folders_in
from equipoise.data.images.encoded import DECODING_ERRORS, reason, rgb_pixels
from equipoise.data.images.labelled import ImageFiles
from equipoise.errors import UserError

Picture = str | Path | Image.Image | NDArray[np.uint8] | Tensor
CHANNELS = (1, 3, 4)
WANTED = (
    "give paths, PIL images, or uint8 arrays and tensors: (H, W) in grey, (H, W, 3) or (3, H, W) "
    "in colour"
)


def as_pixels(picture: Picture) -> Tensor:
    """The picture as uint8 (1 or 3, H, W), upright; transparency is dropped.

    An array is taken as (H, W) or (H, W, C), or as (C, H, W) if that does not fit; a tensor the
    other way round. Raises UserError for something that is not a picture, or for a damaged one.
    """
    if isinstance(picture, str | Path):
        if not Path(picture).is_file():
            raise UserError(f"there is no picture {picture}: {WANTED}")
        return ImageFiles(Path(), [(str(picture), -1)], []).pixels(0)
    if isinstance(picture, Image.Image):
        try:
            return rgb_pixels(picture.copy())
        except DECODING_ERRORS as error:
            raise UserError(f"the picture cannot be decoded ({reason(error)})") from error
    if not isinstance(picture, np.ndarray | Tensor):
        raise UserError(f"a picture cannot be a {type(picture).__name__}: {WANTED}")
    numbers = torch.as_tensor(picture).detach().cpu()
    if numbers.dtype != torch.uint8:
        kind = str(numbers.dtype).removeprefix("torch.")
        raise UserError(f"a picture of {kind} has an unknown white level: {WANTED}, from 0 to 255")
    if numbers.ndim == 2 and numbers.numel():
        return numbers.unsqueeze(0)
    place = channel_place(numbers.shape, last_first=isinstance(picture, np.ndarray))
    if numbers.ndim != 3 or place is None or not numbers.numel():
        raise UserError(f"a picture cannot have the shape {tuple(numbers.shape)}: {WANTED}")
    channels = numbers.movedim(place, 0)
    return (channels[:3] if len(channels) == 4 else channels).contiguous()


def channel_place(shape: Sequence[int], last_first: bool) -> int | None:
    """Which of the last three dimensions counts the channels, -1 or -3; None if neither can."""
    places = (-1, -3) if last_first else (-3, -1)
    fitting = (place for place in places if len(shape) >= 3 and shape[place] in CHANNELS)
    return next(fitting, None)


def as_list(pictures: Any, channels: int = 3) -> list[Picture]:
    """The pictures: one, several in a list, a stack (N, ...) of them, or those below a folder.

    channels: of the network. Raises UserError if there are none, or if an array may be either one
    colour picture or several grey ones for a network that takes grey.
    """
    if isinstance(pictures, str | Path) and Path(pictures).is_dir():
        found: list[Picture] = list(pictures_below(Path(pictures)))
    elif isinstance(pictures, np.ndarray | Tensor):
        found = _of_stack(pictures, grey=channels == 1)
    elif isinstance(pictures, Iterable) and not isinstance(pictures, str | Image.Image):
        found = list(pictures)
    else:
        found = [pictures]
    if not found:
        raise UserError(f"there are no pictures in {pictures!r}: {WANTED}")
    return found


def _of_stack(stack: NDArray[np.uint8] | Tensor, grey: bool) -> list[Picture]:
    of_numpy = isinstance(stack, np.ndarray)
    place = channel_place(stack.shape, of_numpy) if stack.ndim == 3 else None
    if grey and of_numpy and place == -3:
        raise UserError(
            f"{tuple(stack.shape)} may be one picture or {len(stack)} in grey: put several into a "
            "list, or a stack (N, 1, H, W), and give one in colour as (H, W, 3)"
        )
    return [stack] if stack.ndim < 3 or place is not None else list(stack)


def pictures_below(folder: Path) -> list[Path]:
    """The picture files in a folder and its subfolders, sorted; hidden ones are left out.

    Raises UserError if a folder cannot be read.
    """
    files = [folder / name for name in files_in(folder, IMAGE_ENDINGS)]
    for name in folders_in(folder):
        files += pictures_below(folder / name)
    return sorted(files, key=os.fspath)
