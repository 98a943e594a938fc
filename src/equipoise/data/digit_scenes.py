"""Scenes of the bundled digits: segmentation in eleven classes, no download."""

from __future__ import annotations

from equipoise.data.digits import Digits
from equipoise.data.image_data_module import ImageDataModule, SplitName
from equipoise.data.memory_scenes import MemoryScenes
from equipoise.data.normalization import Normalization
from equipoise.data.scene_drawing import CLASSES, draw_scenes
from equipoise.errors import UserError

# Mean and standard deviation are those of all pixels of a training set.
SCENES = Normalization(mean=(0.1808,), std=(0.2067,))
LEAST_CANVAS = 16
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class DigitScenes(ImageDataModule):
    """Grey images (1, canvas, canvas) of one to three digits, and masks: digit + 1, background 0.

    The scenes of a split are drawn from that split of the bundled digits, so that no digit occurs
    in two of them: `train_scenes` of them for training, one a digit for validation and test. All
    is a pure function of `seed`. A batch is {"image" (B, 1, canvas, canvas), "mask" int64
    (B, canvas, canvas), "index" (B,)}.
    """

    def __init__(
        self,
        *,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        seed: int = 0,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        train_scenes: int = 4000,
        canvas: int = 32,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
            num_workers=num_workers,
        )
        if train_scenes < 1:
            raise UserError(f"task.train_scenes is {train_scenes}: set it to 1 or more.")
        if canvas < LEAST_CANVAS:
            raise UserError(f"task.canvas is {canvas}: set it to {LEAST_CANVAS} or more.")
        self.train_scenes = train_scenes
        self.canvas = canvas
        self.digits = Digits(seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)

    def read_split(self, name: SplitName) -> MemoryScenes:
        """Draw the scenes of one split; raises UserError when it has no digits."""
        self.classes = list(CLASSES)
        digits = self.digits.read_split(name)
        count = self.train_scenes if name == "train" else len(digits)
        ink = digits.images[:, 0] / 16
        key = (self.seed, SPLITS.index(name), 4)
        scenes = draw_scenes(ink, digits.labels, count, self.canvas, *key)
        return MemoryScenes(scenes.images, scenes.masks, SCENES)
