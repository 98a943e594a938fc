"""Digits to classify and scenes of digits to segment, side by side: for one model of both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from equipoise.data.digit_scenes import SCENES, DigitScenes
from equipoise.data.loading import Batch, BatchDataset
from equipoise.data.memory_scenes import MemoryScenes
from equipoise.data.module import SplitName
from equipoise.data.sampling import BatchIndex
from equipoise.data.scene_drawing import WHITE


@dataclass(kw_only=True, eq=False)
class DigitsAndScenes(DigitScenes):
    """The bundled digits, enlarged to the scenes' canvas, and the scenes of task=digit_scenes.

    A sample is a digit and a scene of the same split. For validation and test there are as many of
    both; in training the digits take turns. A batch is {"image" (B, 1, canvas, canvas), "label"
    (B,), "scene" (B, 1, canvas, canvas), "mask" (B, canvas, canvas), "index" (B,)}.
    """

    def read_split(self, name: SplitName) -> BatchDataset:
        """Draw the scenes of one split beside its digits; raises UserError without digits."""
        digits = self.digits.read_split(name)
        images = enlarged(digits.images, self.canvas)
        return DigitsWithScenes(images, digits.labels, self.read_scenes(name))


class DigitsWithScenes:
    """Row i: scene i, and the digit i modulo the number of digits."""

    def __init__(self, images: Tensor, labels: Tensor, scenes: MemoryScenes) -> None:
        self.images = images
        self.labels = labels
        self.scenes = scenes

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.scenes)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """Return the batch of the rows in `index`."""
        batch = self.scenes[index]
        rows = index.rows % len(self.labels)
        return {
            "image": SCENES(self.images.index_select(0, rows)),
            "label": self.labels.index_select(0, rows),
            "scene": batch["image"],
            "mask": batch["mask"],
            "index": index.rows,
        }


def enlarged(images: Tensor, side: int) -> Tensor:
    """Return digits (N, 1, 8, 8) in 0 to 16 as (N, 1, side, side) in 0 to 255, both uint8."""
    pixels = images.float() * (WHITE / 16)
    shape = (side, side)
    return functional.interpolate(pixels, shape, mode="bilinear").round().to(torch.uint8)
