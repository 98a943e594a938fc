"""Scenes of a few handwritten digits on a cluttered canvas, each pixel with its class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from equipoise.data.sampling import stream

CLASSES = ("background", *(f"digit {digit}" for digit in range(10)))
WHITE = 255
MOST_DIGITS = 3
SIDES = (0.4, 0.6)  # of a digit, as fractions of the canvas
ATTEMPTS = 20
NOISE = 0.2
STROKES = 4
STROKE_LENGTH = 4
INK = 0.3


class Scenes(NamedTuple):
    """Grey images (N, 1, side, side) and masks (N, side, side), uint8; mask = digit + 1, or 0."""

    images: Tensor
    masks: Tensor


def draw_scenes(digits: Tensor, labels: Tensor, count: int, side: int, *key: int) -> Scenes:
    """Draw `count` scenes from digits (D, h, w) in 0 to 1 with labels (D,).

    Scene i is a pure function of the digits and (*key, i), so a smaller set is the beginning of a
    larger one.
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
        digit = enlarge(digits[row], place[0].stop - place[0].start)
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


def enlarge(digit: Tensor, side: int) -> Tensor:
    """Return the digit (h, w) as (side, side), interpolated bilinearly."""
    return functional.interpolate(digit[None, None], (side, side), mode="bilinear")[0, 0]


def _free_place(taken: Tensor, generator: torch.Generator) -> tuple[slice, slice] | None:
    """Return a square of random size in which nothing is taken yet; None after some attempts."""
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
