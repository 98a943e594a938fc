"""Semantic segmentation: cross-entropy of pixels, mean intersection over union."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from equipoise.errors import UserError
from equipoise.report.page import Picture
from equipoise.report.plot import mask_pictures
from equipoise.tasks.mask_loss import IGNORED, HardPixelCrossEntropy, MaskCrossEntropy, MeanIoU
from equipoise.tasks.objective import MakeOptimizer, Objective
from equipoise.tasks.schedules import Schedule

LossName = Literal["cross_entropy", "ohem"]
PICTURED = 4


class MaskObjective(Objective):
    """What objectives with masks share: pictures of predictions, and the IoU of each class.

    A subclass fills `pictured` in its test step (`keep_pictures`) and logs the metric `miou`.
    """

    def __init__(self, model: nn.Module, make_optimizer: MakeOptimizer, schedule: Schedule) -> None:
        super().__init__(model, make_optimizer, schedule)
        self.per_class: dict[str, float | None] = {}
        self.pictured: dict[str, Tensor] = {}

    def on_test_start(self) -> None:
        """Forget the predictions of an earlier test."""
        self.pictured.clear()

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole test set and keep each class's value."""
        super().on_test_epoch_end()
        self.per_class = iou_by_name(self.stage_metrics("test"), self.class_names())

    def details(self) -> dict[str, Any]:
        """Intersection over union of each class in the last test, for metrics.json."""
        return {"iou_per_class": self.per_class} if self.per_class else {}

    def pictures(self, folder: Path) -> list[Picture]:
        """Draw a few test images with their true and predicted masks; nothing without a test."""
        return mask_pictures(self.pictured, self.class_names(), folder)


class Segmentation(MaskObjective):
    """Trains any model that maps images (B, C, H, W) to mask logits (B, mask_classes, h, w).

    A batch holds image, mask (B, H, W) with 255 where a pixel does not count, and index (B,). The
    logits are upsampled bilinearly to the mask's size before anything else. If
    `align_corners_at_test` is False, the test upsamples like the published inference script, while
    the published training and validation align the corners. `loss="ohem"` counts only the hardest
    pixels; see `HardPixelCrossEntropy` for `ohem_threshold` and `ohem_kept`. Metrics: loss, miou
    over the classes that occur, and accuracy of the pixels, from 0 to 1.

    Source: the published Cityscapes training of MDEQ (2006.08656), which is that of HRNet.
    """

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        mask_classes: int,
        class_weights: Sequence[float] | None,
        loss: LossName = "cross_entropy",
        ohem_threshold: float = 0.9,
        ohem_kept: int = 131072,
        align_corners_at_test: bool = True,
    ) -> None:
        super().__init__(model, make_optimizer, schedule)
        check_class_weights(class_weights, mask_classes)
        self.loss: nn.Module = MaskCrossEntropy(class_weights)
        if loss == "ohem":
            self.loss = HardPixelCrossEntropy(class_weights, ohem_threshold, ohem_kept)
        self.align_corners_at_test = align_corners_at_test
        self.metrics.update({stage: mask_metrics(mask_classes) for stage in ("val", "test")})

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> mask logits (B, mask_classes, h, w)."""
        logits: Tensor = self.model(image)
        return logits

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> dict[str, Tensor]:
        """The loss, and the accuracy of the batch's pixels."""
        mask = batch["mask"]
        logits = upsample(self(batch["image"]), mask)
        loss, terms = self.with_regularization(
            self.loss(logits, mask), lambda z: self.loss(upsample(self.readout(z), mask), mask)
        )
        return {"loss": loss, "accuracy": pixel_accuracy(logits, mask), **terms}

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the validation metrics."""
        update_mask_metrics(
            self.stage_metrics("val"), upsample(self(batch["image"]), batch["mask"]), batch["mask"]
        )

    def test_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the test metrics, and keep some predictions of the first batches."""
        mask = batch["mask"]
        logits = upsample(self(batch["image"]), mask, self.align_corners_at_test)
        update_mask_metrics(self.stage_metrics("test"), logits, mask)
        keep_pictures(self.pictured, batch["image"], mask, logits)

    def predict_step(self, batch: dict[str, Tensor], batch_index: int = 0) -> dict[str, Tensor]:
        """{"mask": the class of each pixel (B, H, W)} of the images of a batch, as in the test."""
        image = batch["image"]
        logits = upsample(self(image), image[:, 0], self.align_corners_at_test)
        return {"mask": logits.argmax(dim=1)}


def check_class_weights(class_weights: Sequence[float] | None, mask_classes: int) -> None:
    """Raise UserError unless there is one weight for each class."""
    if class_weights is not None and len(class_weights) != mask_classes:
        raise UserError(
            f"task.objective.class_weights has {len(class_weights)} entries for {mask_classes} "
            "classes: give one weight for each, or null."
        )


def mask_metrics(mask_classes: int) -> nn.ModuleDict:
    """Loss, mean IoU and pixel accuracy over a whole split, gathered from all processes."""
    accuracy = MulticlassAccuracy(
        mask_classes, average="micro", ignore_index=IGNORED, validate_args=False
    )
    return nn.ModuleDict(
        {"loss": MeanMetric(), "miou": MeanIoU(mask_classes), "accuracy": accuracy}
    )


def update_mask_metrics(metrics: Any, logits: Tensor, mask: Tensor) -> None:
    """Add a batch of upsampled logits (B, K, H, W)."""
    losses = functional.cross_entropy(logits, mask, ignore_index=IGNORED, reduction="none")
    counted = (mask != IGNORED).to(losses.dtype)
    prediction = logits.argmax(dim=1)
    metrics["loss"].update(losses, counted)
    metrics["miou"].update(prediction, mask)
    metrics["accuracy"].update(prediction, mask)


def upsample(logits: Tensor, mask: Tensor, align_corners: bool = True) -> Tensor:
    """Interpolate logits (B, K, h, w) bilinearly to the size of the mask (B, H, W)."""
    if logits.shape[-2:] == mask.shape[-2:]:
        return logits
    return functional.interpolate(
        logits, mask.shape[-2:], mode="bilinear", align_corners=align_corners
    )


def pixel_accuracy(logits: Tensor, mask: Tensor) -> Tensor:
    """The fraction of the counted pixels that are classified correctly; NaN if there are none."""
    counted = mask != IGNORED
    return ((logits.detach().argmax(dim=1) == mask) & counted).sum() / counted.sum()


def keep_pictures(samples: dict[str, Tensor], image: Tensor, mask: Tensor, logits: Tensor) -> None:
    """Add to `samples`, on the host, until there are four; batches of another size are skipped."""
    missing = PICTURED - len(samples["mask"]) if samples else PICTURED
    if missing <= 0 or (samples and samples["mask"].shape[1:] != mask.shape[1:]):
        return
    new = {"image": image.float(), "mask": mask, "prediction": logits.argmax(dim=1)}
    for name, values in new.items():
        parts = [samples[name]] if name in samples else []
        samples[name] = torch.cat([*parts, values[:missing].cpu()])


def iou_by_name(metrics: Any, names: Sequence[str]) -> dict[str, float | None]:
    """Intersection over union by the class's name, None for a class that does not occur."""
    values = metrics["miou"].per_class.tolist()
    numbered = [*names, *(str(number) for number in range(len(names), len(values)))]
    return {n: None if math.isnan(v) else v for n, v in zip(numbered, values, strict=False)}
