"""Scenes of the bundled digits: segmentation in eleven classes, no download.

They can also come beside single digits to classify, for one model of both tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from equipoise.data.images.digits import Digits
from equipoise.data.images.module import ImageDataModule
from equipoise.data.images.splits import MemoryScenes
from equipoise.data.images.transforms import Normalization, Preprocessing
from equipoise.data.loading import Batch, BatchDataset
from equipoise.data.module import SPLITS, SplitName, refuse_below
from equipoise.data.sampling import BatchIndex, stream

CLASSES = ("background", *(f"digit {digit}" for digit in range(10)))
WHITE = 255
MOST_DIGITS = 3
SIDES = (0.4, 0.6)  # of a digit, as fractions of the canvas
ATTEMPTS = 20
NOISE = 0.2
STROKES = 4
STROKE_LENGTH = 4
INK = 0.3
# Mean and standard deviation are those of all pixels of a training set.
SCENES = Normalization(mean=(0.1808,), std=(0.2067,))
LEAST_CANVAS = 16


@dataclass(kw_only=True, eq=False)
class DigitScenes(ImageDataModule):
    """Grey images (1, canvas, canvas) of one to three digits, and masks: digit + 1, background 0.

    The scenes of a split are drawn from the same split of the bundled digits, so that no digit
    occurs in two splits: `train_scenes` for training, one per digit for validation and test.
    All of it is a pure function of `seed`. A batch is {"image" (B, 1, canvas, canvas), "mask" int64
    (B, canvas, canvas), "index" (B,)}. `mask_classes` is the network's number of mask outputs.
    """

    counted_by: ClassVar[str] = "mask_classes"

    batch_size: int = 32
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    train_scenes: int = 4000
    canvas: int = 32
    mask_classes: int = len(CLASSES)

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        refuse_below(self, 1, "train_scenes")
        refuse_below(self, LEAST_CANVAS, "canvas")
        self.digits = Digits(
            seed=self.seed, val_fraction=self.val_fraction, test_fraction=self.test_fraction
        )

    @property
    def preprocessing(self) -> Preprocessing:
        """The whole picture in grey, padded to multiples of the canvas."""
        return Preprocessing(SCENES, multiple=self.canvas)

    def read_split(self, name: SplitName) -> BatchDataset:
        """Draw the scenes of one split; raises UserError when it has no digits."""
        return self.read_scenes(name)

    def read_scenes(self, name: SplitName) -> MemoryScenes:
        """Draw the scenes of one split, in memory."""
        self.class_names = list(CLASSES)
        digits = self.digits.read_split(name)
        count = self.train_scenes if name == "train" else len(digits)
        ink = digits.images[:, 0] / 16
        key = (self.seed, SPLITS.index(name), 4)
        scenes = draw_scenes(ink, digits.labels, count, self.canvas, *key)
        return MemoryScenes(scenes.images, scenes.masks, SCENES)


@dataclass(kw_only=True, eq=False)
class DigitsAndScenes(DigitScenes):
    """The bundled digits, enlarged to the scenes' canvas, and the scenes of task=digit_scenes.

    A sample is a digit and a scene of the same split. Validation and test have as many digits as
    scenes; in training the digits take turns. A batch is {"image" (B, 1, canvas, canvas), "label"
    (B,), "scene" (B, 1, canvas, canvas), "mask" (B, canvas, canvas), "index" (B,)}.
    """

    @property
    def label_names(self) -> list[str]:
        """The names of the classes of whole pictures: the digits."""
        return [str(digit) for digit in range(self.digits.classes)]

    @property
    def preprocessing(self) -> Preprocessing:
        """The same, after enlarging a picture smaller than the canvas, such as a digit."""
        return Preprocessing(SCENES, self._enlarged, self.canvas)

    def mask_at(self, mask: Tensor, size: Sequence[int]) -> Tensor:
        """The mask without padding, reduced to the picture's size if that was enlarged: (H, W)."""
        if max(size) >= self.canvas:
            return super().mask_at(mask, size)
        return functional.interpolate(mask[None, None].float(), list(size))[0, 0].to(mask.dtype)

    def _enlarged(self, pixels: Tensor) -> Tensor:
        if max(pixels.shape[1:]) >= self.canvas:
            return pixels
        return enlarge(pixels[None].float(), self.canvas)[0].round().to(torch.uint8)

    def read_split(self, name: SplitName) -> BatchDataset:
        """Draw the scenes of one split beside its digits; raises UserError without digits."""
        digits = self.digits.read_split(name)
        images = enlarge(digits.images.float() * (WHITE / 16), self.canvas).round().to(torch.uint8)
        return DigitsWithScenes(images, digits.labels, self.read_scenes(name))


@dataclass(eq=False)
class DigitsWithScenes:
    """Row i: scene i, and the digit i modulo the number of digits."""

    images: Tensor
    labels: Tensor
    scenes: MemoryScenes

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.scenes)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """The batch of the rows in `index`."""
        batch = self.scenes[index]
        rows = index.rows % len(self.labels)
        return {
            "image": SCENES(self.images.index_select(0, rows)),
            "label": self.labels.index_select(0, rows),
            "scene": batch["image"],
            "mask": batch["mask"],
            "index": index.rows,
        }


class Scenes(NamedTuple):
    """Grey images (N, 1, side, side) and masks (N, side, side), uint8; mask = digit + 1, or 0."""

    images: Tensor
    masks: Tensor


def draw_scenes(digits: Tensor, labels: Tensor, count: int, side: int, *key: int) -> Scenes:
    """Draw `count` scenes from digits (D, h, w) in 0 to 1 with labels (D,).

    Scene i is a pure function of the digits and (*key, i), so a smaller set is a prefix of a larger
    one.
    """
    scenes = [draw_scene(digits, labels, side, stream(*key, number)) for number in range(count)]
    images = torch.stack([image for image, _ in scenes]).unsqueeze(1)
    return Scenes(images.mul(WHITE).round().to(torch.uint8), torch.stack([m for _, m in scenes]))


def draw_scene(
    digits: Tensor, labels: Tensor, side: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw one to three digits that do not touch, of random size and place, on a cluttered canvas.

    Returns the image (side, side) in 0 to 1 and the mask; a pixel belongs to a digit where its ink
    is above 0.3.
    """
    image, mask = clutter(side, generator), torch.zeros(side, side, dtype=torch.uint8)
    taken = torch.zeros(side, side, dtype=torch.bool)
    for _ in range(_integer(1, MOST_DIGITS, generator)):
        row = _integer(0, len(digits) - 1, generator)
        place = _free_place(taken, generator)
        if place is None:
            break
        digit = enlarge(digits[row, None, None], place[0].stop - place[0].start)[0, 0]
        taken[place] = True
        image[place] = torch.maximum(image[place], digit)
        mask[place] = torch.where(digit > INK, labels[row] + 1, 0).to(torch.uint8)
    return image, mask


def clutter(side: int, generator: torch.Generator) -> Tensor:
    """Draw the canvas (side, side): noise, and short grey strokes across and down."""
    canvas = torch.rand(side, side, generator=generator) * NOISE
    for number in range(STROKES):
        top = _integer(0, side - STROKE_LENGTH, generator)
        left = _integer(0, side - STROKE_LENGTH, generator)
        lines = canvas if number % 2 else canvas.T
        lines[top, left : left + STROKE_LENGTH] = 0.5
    return canvas


def enlarge(digits: Tensor, side: int) -> Tensor:
    """Digits (N, 1, h, w) as (N, 1, side, side), interpolated bilinearly."""
    return functional.interpolate(digits, (side, side), mode="bilinear")


def _free_place(taken: Tensor, generator: torch.Generator) -> tuple[slice, slice] | None:
    """A free square of random size; None after some attempts."""
    canvas = len(taken)
    for _ in range(ATTEMPTS):
        side = _integer(round(SIDES[0] * canvas), round(SIDES[1] * canvas), generator)
        top = _integer(0, canvas - side, generator)
        left = _integer(0, canvas - side, generator)
        place = slice(top, top + side), slice(left, left + side)
        if not taken[place].any():
            return place
    return None


def _integer(least: int, most: int, generator: torch.Generator) -> int:
    return int(torch.randint(least, most + 1, (), generator=generator))
