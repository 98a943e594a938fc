"""Image classification: cross-entropy and top-1 accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import lightning.pytorch as pl
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from equipoise.tasks.schedules import Schedule


class Classification(pl.LightningModule):
    """Trains any model that maps images (B, C, H, W) to logits (B, classes).

    A batch holds image, label (B,) and index (B,). `make_optimizer` takes the parameters, all of
    which are decayed (as the published MDEQ training does). Metrics: loss, accuracy in 0 to 1.
    """

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        schedule: Schedule,
        classes: int,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.make_optimizer = make_optimizer
        self.schedule = schedule
        self.label_smoothing = label_smoothing
        self.metrics = nn.ModuleDict({stage: stage_metrics(classes) for stage in ("val", "test")})
        self.per_class = MulticlassAccuracy(classes, average="none")

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, classes)."""
        logits: Tensor = self.model(image)
        return logits

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> dict[str, Tensor]:
        """The loss, and the accuracy of the batch beside it."""
        logits = self(batch["image"])
        label = batch["label"]
        loss = functional.cross_entropy(logits, label, label_smoothing=self.label_smoothing)
        accuracy = (logits.detach().argmax(dim=1) == label).float().mean()
        return {"loss": loss, "accuracy": accuracy}

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the validation metrics."""
        self._evaluate("val", batch)

    def test_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the test metrics."""
        logits = self._evaluate("test", batch)
        self.per_class.update(logits, batch["label"])

    def on_validation_epoch_end(self) -> None:
        """Log val/loss and val/accuracy of the whole set."""
        self._close("val")

    def on_test_epoch_end(self) -> None:
        """Log test/loss and test/accuracy of the whole set."""
        self._close("test")

    def details(self) -> dict[str, Any]:
        """Per-class accuracy of the last test, for metrics.json."""
        if not self.per_class.update_called:
            return {}
        return {"accuracy_per_class": self.per_class.compute().tolist()}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser over all parameters, its rate stepped every optimiser step."""
        optimizer = self.make_optimizer(self.parameters())
        scheduler = self.schedule(optimizer, int(self.trainer.estimated_stepping_batches))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _evaluate(self, stage: str, batch: dict[str, Tensor]) -> Tensor:
        logits = self(batch["image"])
        label = batch["label"]
        losses = functional.cross_entropy(logits, label, reduction="none")
        metrics = self._metrics(stage)
        metrics["accuracy"].update(logits, label)
        metrics["loss"].update(losses)
        return logits

    def _close(self, stage: str) -> None:
        for name, metric in self._metrics(stage).items():
            self.log(f"{stage}/{name}", metric.compute())
            metric.reset()

    def _metrics(self, stage: str) -> dict[str, Metric]:
        return cast(dict[str, Metric], self.metrics[stage])


def stage_metrics(classes: int) -> nn.ModuleDict:
    """Loss and accuracy over a whole split, gathered from all processes."""
    accuracy = MulticlassAccuracy(classes, average="micro")
    return nn.ModuleDict({"loss": MeanMetric(), "accuracy": accuracy})
