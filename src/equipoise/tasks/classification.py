"""Image classification: cross-entropy and top-1 accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from equipoise.report.page import Picture
from equipoise.tasks.class_predictions import ClassPredictions
from equipoise.tasks.objective import MakeOptimizer, Objective
from equipoise.tasks.schedules import Schedule


class Classification(Objective):
    """Trains any model that maps images (B, C, H, W) to logits (B, classes).

    A batch holds image, label (B,) and index (B,). Metrics: loss, and accuracy from 0 to 1.
    """

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        classes: int,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(model, make_optimizer, schedule)
        self.label_smoothing = label_smoothing
        self.metrics.update({stage: stage_metrics(classes) for stage in ("val", "test")})
        self.classes = classes
        self.predictions = ClassPredictions()

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, classes)."""
        logits: Tensor = self.model(image)
        return logits

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> dict[str, Tensor]:
        """The loss and the accuracy of the batch."""
        logits = self.model(batch["image"])
        label = batch["label"]
        loss, terms = self.with_regularization(
            self._loss(logits, label), lambda z: self._loss(self.readout(z), label)
        )
        accuracy = (logits.detach().argmax(dim=1) == label).float().mean()
        return {"loss": loss, "accuracy": accuracy, **terms}

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the validation metrics."""
        self._evaluate("val", batch)

    def on_test_start(self) -> None:
        """Forget the predictions of an earlier test."""
        self.predictions.clear()

    def test_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the test metrics, and keep the predictions."""
        logits = self._evaluate("test", batch)
        self.predictions.update(batch["image"], logits, batch["label"])

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole test set, and gather the predictions."""
        super().on_test_epoch_end()
        self.predictions.gather()

    def predict_step(self, batch: dict[str, Tensor], batch_index: int = 0) -> dict[str, Tensor]:
        """{"probabilities" (B, classes)} of the images of a batch."""
        return {"probabilities": self(batch["image"]).float().softmax(dim=1)}

    def details(self) -> dict[str, Any]:
        """Per-class accuracy of the last test, for metrics.json."""
        return self.predictions.details(self.classes, self.class_names())

    def pictures(self, folder: Path) -> list[Picture]:
        """Draw which classes are confused, and the most wrong samples; nothing without a test."""
        return self.predictions.pictures(folder, self.classes, self.class_names())

    def _loss(self, logits: Tensor, label: Tensor) -> Tensor:
        return functional.cross_entropy(logits, label, label_smoothing=self.label_smoothing)

    def _evaluate(self, stage: str, batch: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.model(batch["image"])
        label = batch["label"]
        losses = functional.cross_entropy(logits, label, reduction="none")
        metrics = self.stage_metrics(stage)
        metrics["accuracy"].update(logits, label)
        metrics["loss"].update(losses)
        return logits


def stage_metrics(classes: int) -> nn.ModuleDict:
    """Loss and accuracy over a whole split, gathered from all processes."""
    accuracy = MulticlassAccuracy(classes, average="micro")
    return nn.ModuleDict({"loss": MeanMetric(), "accuracy": accuracy})
