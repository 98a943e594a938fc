"""Two random views of a picture, for learning without labels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as images

from equipoise.data.sampling import Keys, normals, uniforms
from equipoise.errors import UserError

COLOURS = 3
BYTES = range(256)
NUMBERS_OF_A_VIEW = 7
"""Zoom, aspect, rotation, two shifts, contrast, the size of the noise."""
OF_NOISE = np.uint64(0xA5A5A5A5A5A5A5A5)
"""Turns the key of a picture into that of its noise."""

Pictures = Sequence[Tensor] | Tensor
"""uint8 (C, H, W) each; a single tensor if all have the same size."""
Operation = Callable[[Image.Image], Image.Image]


class Step(NamedTuple):
    """An operation applied with a probability; None: always, without a draw."""

    probability: float | None
    operation: Operation


@dataclass(kw_only=True, eq=False)
class ViewAugmentation(ABC):
    """Draws views (C, crop_size, crop_size) of pictures; the second may be drawn differently."""

    crop_size: int

    @abstractmethod
    def __call__(self, pictures: Pictures, keys: Keys, white: int, count: int = 2) -> list[Tensor]:
        """The first `count` views of the pictures, each (B, C, crop_size, crop_size).

        pictures: uint8 (C, H, W), at most `white`. keys (B,): a seed for each picture;
        all its draws are a pure function of it, and torch's generators stay as they were.
        """


@dataclass(kw_only=True, eq=False)
class PhotographViews(ViewAugmentation):
    """Random crops, flips and changes of colour, blur, and inversion of bright parts.

    A crop covers `crop_scale` of the area, has sides of 3:4 to 4:3, and is resized to `crop_size`.
    `crop_first` false: colours are changed first. Brightness, contrast, saturation and hue change
    in random order, by at most these factors; blur is Gaussian, of `blur_sigma` pixels;
    solarisation inverts whatever is brighter than half of white. The probabilities of these two are
    given for the first and for the second view.

    Sources: Zbontar et al. 2021, appendix A, with its code; Tsai et al. 2021 (2104.13712) with its.
    Pictures go through Pillow, as there.
    """

    crop_scale: Sequence[float]
    crop_first: bool
    interpolation: Literal["bilinear", "bicubic"]
    flip_probability: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    jitter_probability: float
    gray_probability: float
    blur_probability: Sequence[float]
    blur_sigma: Sequence[float]
    solarize_probability: Sequence[float]

    def __post_init__(self) -> None:
        """Check the ranges; raises UserError."""
        for name in ("crop_scale", "blur_sigma"):
            _check_range(name, getattr(self, name))
        for name in ("blur_probability", "solarize_probability"):
            if len(getattr(self, name)) != 2:
                raise UserError(
                    f"task.augmentation.{name} is {list(getattr(self, name))}: give two numbers, "
                    "one for the first and one for the second view."
                )
        self.steps = [self._steps(view) for view in (0, 1)]

    def __call__(self, pictures: Pictures, keys: Keys, white: int, count: int = 2) -> list[Tensor]:
        """The first `count` views of RGB pictures, uint8 (B, 3, crop_size, crop_size)."""
        shape = (count, len(pictures), self.crop_size, self.crop_size, COLOURS)
        views = np.empty(shape, dtype=np.uint8)
        with torch.random.fork_rng(devices=[]):
            for row, (picture, key) in enumerate(zip(pictures, keys.tolist(), strict=True)):
                # torch.manual_seed would also seed the GPU, whose masks belong to the model.
                torch.default_generator.manual_seed(key)
                image = _rgb(picture)
                for view in range(count):
                    views[view, row] = np.asarray(carried_out(self.steps[view], image))
        return list(torch.from_numpy(views).permute(0, 1, 4, 2, 3))

    def _steps(self, view: int) -> list[Step]:
        """The operations for one of the two views, in order."""
        crop = v2.RandomResizedCrop(
            self.crop_size,
            (self.crop_scale[0], self.crop_scale[1]),
            interpolation=InterpolationMode(self.interpolation),
        )
        jitter = Jitter(self.brightness, self.contrast, self.saturation, self.hue)
        place = [Step(None, _drawn(crop)), Step(self.flip_probability, images.horizontal_flip)]
        colour = [
            Step(self.jitter_probability, _drawn(jitter)),
            Step(self.gray_probability, _gray),
        ]
        light = [
            Step(self.blur_probability[view], self._blurred),
            Step(self.solarize_probability[view], ImageOps.solarize),
        ]
        return [*place, *colour, *light] if self.crop_first else [*colour, *place, *light]

    def _blurred(self, image: Image.Image) -> Image.Image:
        sigma = float(torch.empty(1).uniform_(*self.blur_sigma))
        return image.filter(ImageFilter.GaussianBlur(sigma))


class Jitter(v2.ColorJitter):
    """torchvision's colour changes on a Pillow image, to the same pixels in less time."""

    def transform(self, inpt: Image.Image, params: dict[str, Any]) -> Image.Image:
        """Change brightness, contrast, saturation and hue in the order drawn."""
        for number in params["fn_idx"].tolist():
            name, adjust = ADJUSTMENTS[number]
            if params[name] is not None:
                inpt = adjust(inpt, params[name])
        return inpt


def turned_hue(image: Image.Image, factor: float) -> Image.Image:
    """Shift the hue by a fraction of the circle, through a table instead of arrays."""
    shift = int(factor * 255) % len(BYTES)
    hue = [*BYTES[shift:], *BYTES[:shift]]
    return image.convert("HSV").point([*hue, *BYTES, *BYTES]).convert("RGB")


ADJUSTMENTS: tuple[tuple[str, Callable[[Any, float], Any]], ...] = (
    ("brightness_factor", images.adjust_brightness),
    ("contrast_factor", images.adjust_contrast),
    ("saturation_factor", images.adjust_saturation),
    ("hue_factor", turned_hue),
)
"""Change the picture by the numbers that torchvision draws."""


def carried_out(steps: Sequence[Step], image: Image.Image) -> Image.Image:
    """Apply a list of steps to an image, with torch's global generator."""
    for probability, operation in steps:
        if probability is None or (probability > 0 and float(torch.rand(1)) < probability):
            image = operation(image)
    return image


def _drawn(transform: v2.Transform) -> Operation:
    """The transform with new draws, skipping torchvision's search for images in its arguments."""
    return lambda image: transform.transform(image, transform.make_params([image]))


def _gray(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def _rgb(picture: Tensor) -> Image.Image:
    if picture.shape[0] != COLOURS:
        raise UserError(
            f"task.augmentation changes colours, but the pictures have {picture.shape[0]} "
            "channels instead of 3: choose equipoise.data.AffineViews for them."
        )
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


@dataclass(kw_only=True, eq=False)
class AffineViews(ViewAugmentation):
    """Pictures of one size that are zoomed, stretched, turned and shifted, with contrast and noise.

    zoom: from the smallest to the largest factor; above 1 the picture becomes larger. aspect: the
    largest factor by which it becomes wider or narrower. rotation: at most this many degrees either
    way; shift: at most this fraction of a side. contrast: values are multiplied by 1 - contrast to
    1 + contrast. noise: the largest standard deviation, as a fraction of white. Outside is black
    (0). Values stay fractional, so that pictures of few grey levels do not become coarser, and a
    whole batch is sampled at once, bilinearly.
    """

    zoom: Sequence[float]
    aspect: float
    rotation: float
    shift: float
    contrast: float
    noise: float

    def __post_init__(self) -> None:
        """Check the range; raises UserError."""
        _check_range("zoom", self.zoom)
        middles = (2 * torch.arange(self.crop_size) + 1) / self.crop_size - 1
        down, across = torch.meshgrid(middles, middles, indexing="ij")
        places = torch.stack((across, down, torch.ones_like(across)))
        self.places = places.flatten(1)  # (3, pixels): x, y and 1 for the centre of every pixel

    def __call__(self, pictures: Pictures, keys: Keys, white: int, count: int = 2) -> list[Tensor]:
        """The first `count` views, float32 (B, C, crop_size, crop_size)."""
        whole = pictures if isinstance(pictures, Tensor) else torch.stack(list(pictures))
        stacked = whole.float()
        pixels = stacked.shape[1] * self.crop_size**2
        # Both views of all pictures at once, one after the other.
        numbers = torch.cat(uniforms(keys, 2 * NUMBERS_OF_A_VIEW).chunk(2, dim=1)[:count])
        grains = torch.cat(normals(keys ^ OF_NOISE, 2 * pixels).chunk(2, dim=1)[:count])
        views = self._sampled(stacked.repeat(count, 1, 1, 1), numbers)
        factor = 1 + self.contrast * (2 * numbers[:, 5] - 1)
        noise = grains.mul_(self.noise * white * numbers[:, 6:7]).view_as(views)
        views = views.mul_(factor.view(-1, 1, 1, 1)).add_(noise).clamp_(0, white)
        return list(views.chunk(count))

    def _sampled(self, pictures: Tensor, numbers: Tensor) -> Tensor:
        """Zoom, stretch, turn and shift pictures (B, C, S, S) by numbers (B, 7) in 0..1."""
        least, most = self.zoom
        zoom = least + (most - least) * numbers[:, 0]
        stretch = ((2 * numbers[:, 1] - 1) * math.log(self.aspect) / 2).exp()
        angle = math.radians(self.rotation) * (2 * numbers[:, 2] - 1)
        cosine, sine = angle.cos(), angle.sin()
        across, down = (1 / (zoom * stretch)), stretch / zoom
        offset = 2 * self.shift * (2 * numbers[:, 3:5] - 1)
        entries = (across * cosine, -across * sine, offset[:, 0],
                   down * sine, down * cosine, offset[:, 1])  # fmt: skip
        # One product for all pictures: functional.affine_grid does a three-column one for each.
        grid = torch.stack(entries, dim=1).view(-1, 3) @ self.places
        grid = grid.view(-1, 2, self.crop_size, self.crop_size).permute(0, 2, 3, 1)
        return functional.grid_sample(pictures, grid, align_corners=False)


def _check_range(name: str, ends: Sequence[float]) -> None:
    if len(ends) != 2 or not 0 <= ends[0] <= ends[1]:
        raise UserError(f"task.augmentation.{name} is {list(ends)}: set it to [least,most].")
