"""Masks against predictions: cross-entropy over all pixels or the hardest, mean IoU of a split."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassConfusionMatrix

from equipoise.nn.over_processes import per_process

IGNORED = 255
"""The class number of pixels that count neither for the loss nor for the metrics."""


class MaskCrossEntropy(nn.Module):
    """The mean over all pixels p of -log softmax(logits)[mask_p], weighted by w[mask_p].

    sum_p w[mask_p] loss_p / sum_p w[mask_p], for logits (B, K, H, W) and mask (B, H, W); 0 where
    every pixel is ignored. `class_weights` are the K weights w, all 1 without them. In training the
    pixels are those of all processes, over which gradients are averaged.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", _as_tensor(class_weights), persistent=False)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss, a scalar."""
        total = functional.cross_entropy(
            logits, mask, self.class_weights, ignore_index=IGNORED, reduction="sum"
        )
        counted = mask != IGNORED
        if self.class_weights is None:
            return total / _at_least_one(per_process(counted.sum()))
        weights = self.class_weights[mask.masked_fill(~counted, 0)]
        weight = per_process((weights * counted).sum())
        return total / weight.clamp(min=torch.finfo(weights.dtype).tiny)


class HardPixelCrossEntropy(nn.Module):
    """The mean of w[mask_p] loss_p over the pixels whose true class has a low probability.

    Those with a probability below max(threshold, t), where t is the probability of the pixel that
    stands at place `kept` (from 0) when all are sorted with the lowest first: at least about `kept`
    pixels, and all below the threshold. 0 where no pixel is below it. The mean is not divided by
    the weights. Each process chooses among its own pixels; the mean is over the hard ones of all.
    Source: online hard example mining (Shrivastava et al. 2016, arXiv 1604.03540) for pixels, as in
    the published HRNet and MDEQ training.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None, threshold: float, kept: int) -> None:
        super().__init__()
        if not 0 <= threshold <= 1 or kept < 1:
            raise ValueError("ohem_threshold must lie in [0, 1] and ohem_kept be at least 1")
        self.register_buffer("class_weights", _as_tensor(class_weights), persistent=False)
        self.threshold = threshold
        self.kept = kept

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss, a scalar, for logits (B, K, H, W) and mask (B, H, W)."""
        losses = functional.cross_entropy(
            logits, mask, self.class_weights, ignore_index=IGNORED, reduction="none"
        )
        hard = self.hard_pixels(logits.detach(), mask)
        return losses.masked_fill(~hard, 0).sum() / _at_least_one(per_process(hard.sum()))

    def hard_pixels(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Which pixels count, (B, H, W); reads nothing on the host."""
        counted = mask != IGNORED
        classes = mask.masked_fill(~counted, 0).unsqueeze(1)
        probability = logits.softmax(dim=1).gather(1, classes).squeeze(1)
        ascending = probability.masked_fill(~counted, torch.inf).flatten().sort().values
        place = (counted.sum() - 1).clamp(min=0, max=self.kept)
        limit = ascending.gather(0, place.view(1)).clamp(min=self.threshold)
        return counted & (probability < limit)


def _at_least_one(count: Tensor) -> Tensor:
    """The count, and 1 for none; a mean over processes can lie between."""
    return torch.where(count > 0, count, 1)


def _as_tensor(class_weights: Sequence[float] | None) -> Tensor | None:
    return None if class_weights is None else torch.tensor(class_weights)


class MeanIoU(MulticlassConfusionMatrix):
    """The mean over the classes that occur of intersection over union, from one confusion matrix.

    Of class k: pixels that are k and called k, over pixels that are k or called k, both counted
    over the whole split and all processes. A class occurs when the masks hold a pixel of it: one
    that is only wrongly predicted costs the others their union and has no value of its own. NaN
    without masks. `per_class` (K,) holds the values of the latest `compute`, NaN for a class that
    does not occur.
    """

    def __init__(self, classes: int) -> None:
        # Validation would cost a host–device sync per batch.
        super().__init__(classes, ignore_index=IGNORED, validate_args=False)
        self.per_class = torch.empty(0)

    def compute(self) -> Tensor:
        """The mean, a scalar in 0 to 1."""
        counts: Tensor = super().compute().double()  # rows: true classes, columns: predicted ones
        intersection, occurring, called = counts.diag(), counts.sum(1), counts.sum(0)
        ratio = intersection / (occurring + called - intersection)
        self.per_class = ratio.masked_fill(occurring == 0, torch.nan)
        return self.per_class.nanmean().float()
