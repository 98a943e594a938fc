"""One network for two tasks: a weighted sum of a classification and a segmentation loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from equipoise.equilibrium.state import State
from equipoise.errors import UserError
from equipoise.report.page import Picture
from equipoise.tasks.class_predictions import ClassPredictions
from equipoise.tasks.mask_loss import MaskCrossEntropy, MeanIoU
from equipoise.tasks.objective import MakeOptimizer
from equipoise.tasks.schedules import Schedule
from equipoise.tasks.segmentation import (
    MaskObjective,
    check_class_weights,
    keep_pictures,
    upsample,
)


class ClassificationAndSegmentation(MaskObjective):
    """Trains one model on images with labels and on images with masks, all of the same size.

    loss = label_weight * cross-entropy of the labels + mask_weight * cross-entropy of the masks. A
    batch holds image (B, C, H, W) with label (B,), scene (B, C, H, W) with mask (B, H, W), and
    index (B,); both kinds pass through one solve. The model has `state(image)` and `readout(state,
    "logits" | "mask_logits")`. Metrics: loss, the weighted sum; accuracy of the labels and miou of
    the masks, from 0 to 1; score, the mean of these two. If one weight is 0, only the other half is
    trained, on the same batches, for comparison.

    Source: one MDEQ serves both, 2006.08656, section 1; training it on both at once is our own.
    """

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        classes: int,
        mask_classes: int,
        class_weights: Sequence[float] | None,
        label_weight: float = 1.0,
        mask_weight: float = 1.0,
    ) -> None:
        super().__init__(model, make_optimizer, schedule)
        check_class_weights(class_weights, mask_classes)
        if min(label_weight, mask_weight) < 0 or label_weight + mask_weight == 0:
            raise UserError(
                f"task.objective.label_weight is {label_weight} and mask_weight {mask_weight}: "
                "set both to 0 or more, and at least one of them above 0."
            )
        self.classes = classes
        self.predictions = ClassPredictions()
        self.mask_loss = MaskCrossEntropy(class_weights)
        self.label_weight = label_weight
        self.mask_weight = mask_weight
        self.metrics.update(
            {stage: joint_metrics(classes, mask_classes) for stage in ("val", "test")}
        )

    def forward(self, image: Tensor, scene: Tensor) -> tuple[Tensor, Tensor]:
        """Images and scenes (B, C, H, W) -> logits (B, classes) and mask logits (B, K, h, w)."""
        state: State = self.model.state(torch.cat([image, scene]))  # type: ignore[operator]
        return self._read(state, len(image))

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> dict[str, Tensor]:
        """The weighted loss, and the accuracy of the labels."""
        logits, mask_logits = self(batch["image"], batch["scene"])
        loss, terms = self.with_regularization(
            self._loss(logits, mask_logits, batch),
            lambda z: self._loss(*self._read(z, len(batch["label"])), batch),
        )
        accuracy = (logits.detach().argmax(dim=1) == batch["label"]).float().mean()
        return {"loss": loss, "accuracy": accuracy, **terms}

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the validation metrics."""
        self._evaluate("val", batch)

    def test_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the test metrics, and keep some predictions of the first batches."""
        logits, mask_logits = self._evaluate("test", batch)
        self.predictions.update(batch["image"], logits, batch["label"])
        keep_pictures(self.pictured, batch["scene"], batch["mask"], mask_logits)

    def predict_step(self, batch: dict[str, Tensor], batch_index: int = 0) -> dict[str, Tensor]:
        """{"probabilities" (B, classes), "mask" (B, H, W)} of the same images, by one solve."""
        network: Any = self.model
        image = batch["image"]
        state: State = network.state(image)
        mask_logits = upsample(network.readout(state, "mask_logits"), image[:, 0])
        probabilities = network.readout(state, "logits").float().softmax(dim=1)
        return {"probabilities": probabilities, "mask": mask_logits.argmax(dim=1)}

    def on_test_start(self) -> None:
        """Forget the predictions of an earlier test."""
        super().on_test_start()
        self.predictions.clear()

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole test set; keep each class's value and the predictions."""
        super().on_test_epoch_end()
        self.predictions.gather()

    def details(self) -> dict[str, Any]:
        """The accuracy of each label, named by its number, and the details of the masks."""
        return {**super().details(), **self.predictions.details(self.classes, [])}

    def pictures(self, folder: Path) -> list[Picture]:
        """Draw a few masks, which labels are confused, and the most wrong images."""
        return [*super().pictures(folder), *self.predictions.pictures(folder, self.classes, [])]

    def logged(self, stage: str) -> set[str]:
        """The names of the metrics, and of the score that combines them."""
        return {*super().logged(stage), f"{stage}/score"}

    def _read(self, state: State, images: int) -> tuple[Tensor, Tensor]:
        """Read the first `images` samples of the state with one head, the rest with the other."""
        read: Any = self.model.readout
        logits: Tensor = read(rows(state, slice(None, images)), "logits")
        mask_logits: Tensor = read(rows(state, slice(images, None)), "mask_logits")
        return logits, mask_logits

    def _loss(self, logits: Tensor, mask_logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        label_loss = functional.cross_entropy(logits, batch["label"])
        mask_loss = self.mask_loss(upsample(mask_logits, batch["mask"]), batch["mask"])
        total: Tensor = self.label_weight * label_loss + self.mask_weight * mask_loss
        return total

    def _evaluate(self, stage: str, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits, mask_logits = self(batch["image"], batch["scene"])
        mask_logits = upsample(mask_logits, batch["mask"])
        metrics = self.stage_metrics(stage)
        metrics["loss"].update(self._loss(logits, mask_logits, batch), len(logits))
        metrics["accuracy"].update(logits, batch["label"])
        metrics["miou"].update(mask_logits.argmax(dim=1), batch["mask"])
        return logits, mask_logits

    def _close(self, stage: str) -> None:
        metrics = self.stage_metrics(stage)
        score = (metrics["accuracy"].compute() + metrics["miou"].compute()) / 2
        self.log(f"{stage}/score", score)
        super()._close(stage)


def rows(state: State, samples: slice) -> State:
    """Some samples of a state, which is a tensor or a tuple of one tensor per branch."""
    if isinstance(state, Tensor):
        return state[samples]
    return tuple(branch[samples] for branch in state)


def joint_metrics(classes: int, mask_classes: int) -> nn.ModuleDict:
    """The metrics of both halves over a whole split, gathered from all processes."""
    return nn.ModuleDict(
        {
            "loss": MeanMetric(),
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "miou": MeanIoU(mask_classes),
        }
    )
