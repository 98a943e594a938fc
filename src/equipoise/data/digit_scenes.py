"""Scenes of the bundled digits: segmentation in eleven classes, no download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from equipoise.data.digits import Digits
from equipoise.data.image_data_module import ImageDataModule
from equipoise.data.loading import BatchDataset
from equipoise.data.memory_scenes import MemoryScenes
from equipoise.data.module import SPLITS, SplitName, refuse_below
from equipoise.data.normalization import Normalization
from equipoise.data.scene_drawing import CLASSES, draw_scenes

# Mean and standard deviation are those of all pixels of a training set.
SCENES = Normalization(mean=(0.1808,), std=(0.2067,))
LEAST_CANVAS = 16


@dataclass(kw_only=True, eq=False)
class DigitScenes(ImageDataModule):
    """Grey images (1, canvas, canvas) of one to three digits, and masks: digit + 1, background 0.

    The scenes of a split are drawn from that split of the bundled digits, so that no digit occurs
    in two of them: `train_scenes` of them for training, one a digit for validation and test. All
    is a pure function of `seed`. A batch is {"image" (B, 1, canvas, canvas), "mask" int64
    (B, canvas, canvas), "index" (B,)}. `mask_classes` is how many outputs the network has for them.
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
