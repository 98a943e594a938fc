"""Intersection over union, summed over a whole split."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from equipoise.tasks.mask_loss import IGNORED


class MeanIoU(MulticlassConfusionMatrix):
    """The mean over the classes that occur of intersection over union, from one confusion matrix.

    Of class k: pixels that are k and called k, over pixels that are k or called k, both counted
    over the whole split and all processes. A class occurs when the masks hold a pixel of it: one
    that is only wrongly predicted costs the others their union and has no value of its own. NaN
    without masks. `per_class` (K,) holds the values of the latest `compute`, NaN for a class that
    does not occur.
    """

    def __init__(self, classes: int) -> None:
        # Validation would read the device at every batch.
        super().__init__(classes, ignore_index=IGNORED, validate_args=False)
        self.per_class = torch.empty(0)

    def compute(self) -> Tensor:
        """Return the mean, a scalar in 0 to 1."""
        counts: Tensor = super().compute().double()  # rows: true classes, columns: predicted ones
        intersection, occurring, called = counts.diag(), counts.sum(1), counts.sum(0)
        ratio = intersection / (occurring + called - intersection)
        self.per_class = ratio.masked_fill(occurring == 0, torch.nan)
        return self.per_class.nanmean().float()
