"""Language modelling: perplexity or bits per character, compared with the unigram baseline."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor, nn
from torchmetrics import MeanMetric

from equipoise.tasks.objective import MakeOptimizer
from equipoise.tasks.schedules import Schedule
from equipoise.tasks.token_objective import Perplexity
from equipoise.tasks.token_prediction import BitsPerToken, TokenPrediction, UnigramEntropy

Unit = Literal["word", "character", "subword"]


class LanguageModelling(TokenPrediction):
    """Predict the next token of running text; see `TokenPrediction` for model, batch and loss.

    unit: what a token is. Metrics: loss in nats per token; perplexity, or bits_per_character if
    tokens are characters. `details` holds the same measure for the split's own unigram frequencies,
    which no model without context can beat, and the data module's facts about the text.

    Source: 1909.01377, section 4, for training by segments with memory.
    """

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        vocabulary: int,
        unit: Unit = "word",
    ) -> None:
        super().__init__(model, make_optimizer, schedule)
        self.unit = unit
        self.measure = "bits_per_character" if unit == "character" else "perplexity"
        self.metrics.update({stage: self._stage_metrics() for stage in ("val", "test")})
        self.unigram = UnigramEntropy(vocabulary)
        self.latest: dict[str, Any] = {}

    def training_terms(self, token_loss: Tensor) -> dict[str, Tensor]:
        """Perplexity or bits per character of the batch."""
        if self.measure == "perplexity":
            return {self.measure: token_loss.exp()}
        return {self.measure: token_loss / math.log(2)}

    def update_metrics(
        self, stage: str, hidden: Tensor, losses: Tensor, batch: dict[str, Tensor]
    ) -> None:
        """Add a batch; in the test, its targets also count for the unigram baseline."""
        super().update_metrics(stage, hidden, losses, batch)
        counted = (batch["targets"] >= 0).to(losses.dtype)
        self.stage_metrics(stage)[self.measure].update(losses, counted)
        if stage == "test":
            self.unigram.update(batch["targets"])

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole split; keep the baseline and the facts about the text."""
        loss = self.stage_metrics("test")["loss"].compute()
        self.latest = self._baseline(self.unigram.compute()) | self._facts(loss)
        self.unigram.reset()
        super().on_test_epoch_end()

    def details(self) -> dict[str, Any]:
        """The unigram baseline and the facts about the text of the last test, for metrics.json."""
        return self.latest

    def _stage_metrics(self) -> nn.ModuleDict:
        measure = Perplexity() if self.measure == "perplexity" else BitsPerToken()
        return nn.ModuleDict({"loss": MeanMetric(), self.measure: measure})

    def _baseline(self, entropy: Tensor) -> dict[str, float]:
        if self.measure == "perplexity":
            return {"unigram_perplexity": float(entropy.exp())}
        return {"unigram_bits_per_character": float(entropy) / math.log(2)}

    def _facts(self, loss: Tensor) -> dict[str, Any]:
        tell = getattr(getattr(self.trainer, "datamodule", None), "facts", None)
        facts: dict[str, Any] = {} if tell is None else tell("test")
        rate = facts.pop("tokens_per_character", None)
        if self.unit == "subword" and rate is not None:
            facts["bits_per_character"] = float(loss) / math.log(2) * rate
        return facts
