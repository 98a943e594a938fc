"""Scikit-learn's handwritten digits: 1,797 images of 8 by 8 pixels, bundled, no download."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from equipoise.data.images.module import ImageDataModule
from equipoise.data.images.splits import MemoryImages
from equipoise.data.images.transforms import Normalization, Preprocessing, whole_at
from equipoise.data.module import SplitName, check_fraction
from equipoise.data.sampling import stratified_split, stream
from equipoise.errors import UserError

IMAGES = 1797
SIDE = 8
# Pixels are 0 to 16; mean and standard deviation are those of all training pixels.
DIGITS = Normalization(mean=(0.3053,), std=(0.3760,), white=16)


@dataclass(kw_only=True, eq=False)
class Digits(ImageDataModule):
    """Ten classes of grey images (1, 8, 8), in splits stratified by class.

    `test_fraction` of all images form the test split, `val_fraction` of the others the validation
    split, both drawn by `seed`; with `val_fraction=0` the test split serves for both. `classes` is
    the network's number of outputs.
    """

    batch_size: int = 64
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    classes: int = 10

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        check_fraction("val_fraction", self.val_fraction)
        check_fraction("test_fraction", self.test_fraction)
        self._refuse_empty_splits()

    @property
    def preprocessing(self) -> Preprocessing:
        """Grey, at 8 by 8 pixels, in the 17 levels of the digits."""
        return Preprocessing(DIGITS, whole_at(SIDE))

    def read_split(self, name: SplitName) -> MemoryImages:
        """One split."""
        digits = load_digits()
        self.class_names = [str(label) for label in digits.target_names]
        images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(digits.target).long()
        rows = self._rows(name, labels)
        return MemoryImages(images[rows], labels[rows], DIGITS)

    def _refuse_empty_splits(self) -> None:
        """Raise UserError at once, rather than after training, if nothing is left to test."""
        test = round(self.test_fraction * IMAGES)
        rest = IMAGES - test
        if test == 0:
            raise UserError("No digits are left for test: raise task.test_fraction above 0.")
        if rest == round(self.val_fraction * rest):
            raise UserError(
                "No digits are left for train: lower task.test_fraction or task.val_fraction."
            )

    def _rows(self, name: SplitName, labels: Tensor) -> Tensor:
        rest, test = stratified_split(labels, self.test_fraction, stream(self.seed))
        train, val = stratified_split(labels[rest], self.val_fraction, stream(self.seed))
        rows = {"train": rest[train], "val": rest[val] if len(val) else test, "test": test}
        return rows[name]
