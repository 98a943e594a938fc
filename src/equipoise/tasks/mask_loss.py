"""Predictions compared with masks: cross-entropy over all or the hardest pixels, and mean IoU."""

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
    every pixel is ignored. `class_weights` are the K weights w; None: all are 1. In training, the
    mean is over the pixels of all processes, since gradients are averaged over the processes.
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

    A pixel counts if that probability is below max(threshold, t), where t is the probability at
    index `kept` (from 0) after sorting in ascending order: at least about `kept` pixels count, and
    all below the threshold. The loss is 0 if no pixel counts. The mean is not divided by the
    weights. Each process chooses among its own pixels; the mean is over all that were chosen.
    Source: online hard example mining (Shrivastava et al. 2016, arXiv 1604.03540) for pixels, as in
    the published HRNet and MDEQ training.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None, threshold: float, kept: int) -> None:
        super().__init__()
        if not 0 <= threshold <= 1 or kept < 1:
            raise ValueError("ohem_threshold must lie in [0, 1] and ohem_kept must be at least 1")
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
        """Which pixels count, (B, H, W); costs no host–device sync."""
        counted = mask != IGNORED
        classes = mask.masked_fill(~counted, 0).unsqueeze(1)
        probability = logits.softmax(dim=1).gather(1, classes).squeeze(1)
        ascending = probability.masked_fill(~counted, torch.inf).flatten().sort().values
        place = (counted.sum() - 1).clamp(min=0, max=self.kept)
        limit = ascending.gather(0, place.view(1)).clamp(min=self.threshold)
        return counted & (probability < limit)


def _at_least_one(count: Tensor) -> Tensor:
    """The count, or 1 if it is 0; a mean over processes may lie between the two."""
    return torch.where(count > 0, count, 1)


def _as_tensor(class_weights: Sequence[float] | None) -> Tensor | None:
    return None if class_weights is None else torch.tensor(class_weights)


class MeanIoU(MulticlassConfusionMatrix):
    """Mean intersection over union of the classes that occur, from one confusion matrix.

    For class k: the pixels that are k and predicted as k, over those that are k or predicted as k,
    both counted over the whole split and all processes. A class occurs if the masks hold a pixel of
    it. One that does not occur but is predicted enlarges the unions of the others, and has no value
    of its own. NaN without masks. `per_class` (K,) holds the values of the latest `compute`, NaN
    for a class that does not occur.
    """

    def __init__(self, classes: int) -> None:
        # Validation would cost a host–device sync per batch.
        super().__init__(classes, ignore_index=IGNORED, validate_args=False)
        self.per_class = torch.empty(0)

    def compute(self) -> Tensor:
        """The mean, a scalar from 0 to 1."""
        counts: Tensor = super().compute().double()  # rows: true classes, columns: predicted ones
        intersection, occurring, called = counts.diag(), counts.sum(1), counts.sum(0)
        ratio = intersection / (occurring + called - intersection)
        self.per_class = ratio.masked_fill(occurring == 0, torch.nan)
        return self.per_class.nanmean().float()
