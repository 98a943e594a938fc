"""Sequences whose end asks for something that was shown earlier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from equipoise.tasks.objective import MakeOptimizer
from equipoise.tasks.schedules import Schedule
from equipoise.tasks.token_prediction import ExactMatch, TokenPrediction


class SequenceRecall(TokenPrediction):
    """Predict every token of a sequence whose last `recalled` tokens must be remembered.

    Metrics: loss over all tokens in nats; accuracy of the recalled tokens, and exact_match, the
    fraction of the sequences in which all of them are right; both from 0 to 1. `details` holds the
    data module's facts, such as the loss without memory.
    """

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        recalled: int = 10,
    ) -> None:
        super().__init__(model, make_optimizer, schedule)
        self.recalled = recalled
        self.metrics.update({stage: _recall_metrics() for stage in ("val", "test")})

    def update_metrics(
        self, stage: str, hidden: Tensor, losses: Tensor, batch: dict[str, Tensor]
    ) -> None:
        """Add a batch."""
        super().update_metrics(stage, hidden, losses, batch)
        metrics, targets = self.stage_metrics(stage), batch["targets"][:, -self.recalled :]
        predict: Any = self.model.log_probabilities
        correct = predict(hidden[:, -self.recalled :]).argmax(dim=-1) == targets
        metrics["accuracy"].update(correct.to(torch.float32))
        metrics["exact_match"].update(correct)

    def details(self) -> dict[str, Any]:
        """The data module's facts about the test, for metrics.json."""
        tell = getattr(getattr(self.trainer, "datamodule", None), "facts", None)
        return {} if tell is None else tell("test")


def _recall_metrics() -> nn.ModuleDict:
    return nn.ModuleDict(
        {"loss": MeanMetric(), "accuracy": MeanMetric(), "exact_match": ExactMatch()}
    )
