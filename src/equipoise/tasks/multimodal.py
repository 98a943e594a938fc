"""Sentiment and emotions from language, audio and vision: L1 or cross entropy, and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from equipoise.errors import UserError
from equipoise.report.page import Picture
from equipoise.report.streams import draw_crossmodal, draw_emotions, draw_sentiment
from equipoise.tasks.multimodal_scores import (
    SENTIMENT_SCORES,
    Floats,
    Rows,
    Split,
    emotion_score_names,
    emotion_scores,
    sentiment_scores,
    split_of_all_processes,
)
from equipoise.tasks.objective import MakeOptimizer, Objective
from equipoise.tasks.schedules import Schedule

EMOTIONS = ("neutral", "happy", "sad", "angry")


class Described(Protocol):
    """The data module."""

    def facts(self, split: str) -> dict[str, Any]:
        """Facts about a split that belong beside its results."""
        ...


class Prediction(Protocol):
    """What a model of several streams returns; see `MultimodalObjective`."""

    @property
    def outputs(self) -> Tensor:
        """The predictions (B, O)."""
        ...

    @property
    def auxiliary(self) -> Tensor | None:
        """What an alignment module adds to the loss in training, a scalar."""
        ...


class MultimodalObjective(Objective, ABC):
    """Trains any model that maps a batch of streams to outputs (B, O): see `Prediction`.

    A batch holds the streams (B, T, F) by name, label and index (B,). Metrics: loss, without what
    an alignment module adds, and the subclass's scores; both are over the whole split, each sample
    once, whatever the number of processes.

    The gradients of `model.alignment`, if that is a module, are clipped separately from the others,
    to the same value. The report shows `model.attention_maps(batch)`, if the model offers it, for
    `samples` test samples.
    """

    trained_on: str
    """The loss in words, for metrics.json."""

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        samples: int = 3,
    ) -> None:
        super().__init__(model, make_optimizer, schedule)
        self.samples = samples
        self.seen: dict[str, list[Rows]] = {"val": [], "test": []}
        self.first: dict[str, Tensor] = {}
        self.tested: Split | None = None
        self.facts: dict[str, Any] = {}

    @property
    @abstractmethod
    def score_names(self) -> tuple[str, ...]:
        """The names of the scores beside the loss."""

    @abstractmethod
    def loss(self, outputs: Tensor, label: Tensor) -> Tensor:
        """The mean loss of outputs (B, O)."""

    @abstractmethod
    def scores(self, outputs: Floats, label: Floats) -> dict[str, float]:
        """The scores of a whole split by name, from outputs (N, O) and labels (N,) or (N, E)."""

    @abstractmethod
    def draw(self, folder: Path, tested: Split) -> list[Picture]:
        """Draw the predictions for the test samples against the truth."""

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> dict[str, Tensor]:
        """The loss, with what regularisers and an alignment module add."""
        prediction: Prediction = self.model(batch)
        loss, terms = self.with_regularization(
            self.loss(prediction.outputs, batch["label"]),
            lambda z: self.loss(self.readout(z), batch["label"]),
        )
        if prediction.auxiliary is not None:
            loss = loss + prediction.auxiliary
            terms["auxiliary_loss"] = prediction.auxiliary.detach()
        return {"loss": loss, **terms}

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Keep the predictions."""
        self._predict("val", batch)

    def test_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Keep the predictions, and the first samples to be drawn."""
        self._predict("test", batch)
        if batch_index == 0:
            self.first = {name: part[: self.samples] for name, part in batch.items()}

    def predict_step(self, batch: dict[str, Tensor], batch_index: int = 0) -> dict[str, Tensor]:
        """The network's predictions for each sample of a batch, by name."""
        prediction: Prediction = self.model(batch)
        return self.named(prediction.outputs.float())

    @abstractmethod
    def named(self, outputs: Tensor) -> dict[str, Tensor]:
        """The predictions in outputs (B, O) by name, each (B,)."""

    def logged(self, stage: str) -> set[str]:
        """The names under which the metrics of "val" or "test" are logged."""
        return {f"{stage}/{name}" for name in ("loss", *self.score_names)}

    def details(self) -> dict[str, Any]:
        """Facts about the last test; empty without one."""
        return self.facts

    def pictures(self, folder: Path) -> list[Picture]:
        """Draw the predictions of the last test, and its attention; nothing without a test."""
        if self.tested is None:
            return []
        pictures = self.draw(folder, self.tested)
        count = len(self.first["index"])
        for number in range(count):
            batch = {n: p[number : number + 1].to(self.device) for n, p in self.first.items()}
            maps = {name: m[0] for name, m in self.offered("attention_maps", batch).items()}
            streams = {name: part[0] for name, part in batch.items() if part.dim() == 3}
            title = f"Attention on test sample {int(batch['index'])}"
            pictures += draw_crossmodal(folder, number + 1, maps, streams, title)
        return pictures

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the alignment's gradients separately from that of all others."""
        alignment = getattr(self.model, "alignment", None)
        if alignment is None or not gradient_clip_val or gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        apart = list(alignment.parameters())
        known = {id(parameter) for parameter in apart}
        others = [parameter for parameter in self.parameters() if id(parameter) not in known]
        for parameters in (apart, others):
            nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def _predict(self, stage: str, batch: dict[str, Tensor]) -> None:
        prediction: Prediction = self.model(batch)
        self.seen[stage].append((batch["index"], prediction.outputs, batch["label"]))

    def _close(self, stage: str) -> None:
        """Log the loss and scores of the predictions of all processes, each sample once."""
        split = split_of_all_processes(self.seen[stage])
        self.seen[stage] = []
        loss = float(self.loss(*map(torch.from_numpy, split)))
        for name, score in {"loss": loss, **self.scores(*split)}.items():
            self.log(f"{stage}/{name}", score)
        if stage == "test":
            self.tested = split
            data: Described = self.trainer.datamodule  # type: ignore[attr-defined]
            self.facts = {**data.facts("test"), "trained_on": self.trained_on}


class SentimentRegression(MultimodalObjective):
    """Trains on the mean absolute error of a sentiment, label (B,) from -3 to 3.

    Metrics: loss, and the `sentiment_scores`. Source: 1906.00295, section 4.
    """

    score_names = SENTIMENT_SCORES
    trained_on = "mean absolute error"

    def loss(self, outputs: Tensor, label: Tensor) -> Tensor:
        """The mean absolute error of outputs (B, 1)."""
        return functional.l1_loss(outputs.reshape(label.shape), label)

    def named(self, outputs: Tensor) -> dict[str, Tensor]:
        """{"sentiment": from -3 to 3}."""
        return {"sentiment": outputs.squeeze(-1)}

    def scores(self, outputs: Floats, label: Floats) -> dict[str, float]:
        """The sentiment scores of outputs (N, 1)."""
        return sentiment_scores(outputs.squeeze(-1), label)

    def draw(self, folder: Path, tested: Split) -> list[Picture]:
        """Draw predicted against true sentiment."""
        return draw_sentiment(folder, tested.outputs.squeeze(-1), tested.label)


class EmotionRecognition(MultimodalObjective):
    """Trains on the mean cross entropy of several emotions, each present or not.

    Outputs (B, 2 E) are the logits of absent and present for each of the `emotions`, and the mean
    is over all B E of them; labels (B, E) are 0 or 1. Metrics: loss, and the `emotion_scores`.
    Source: 1906.00295, section 4, and its code.
    """

    trained_on = "mean cross entropy of all emotions"

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        emotions: Sequence[str] = EMOTIONS,
        samples: int = 3,
    ) -> None:
        super().__init__(model, make_optimizer, schedule, samples)
        self.emotions = tuple(emotions)

    @property
    def score_names(self) -> tuple[str, ...]:
        """The names of the scores of each emotion, and of their means."""
        return emotion_score_names(self.emotions)

    def loss(self, outputs: Tensor, label: Tensor) -> Tensor:
        """The mean cross entropy of outputs (B, 2 E). Raises UserError for another width."""
        self._check("task.outputs", outputs.shape[1], 2 * len(self.emotions))
        self._check("the emotions in the labels", label.shape[1], len(self.emotions))
        return functional.cross_entropy(outputs.reshape(-1, 2), label.reshape(-1).long())

    def named(self, outputs: Tensor) -> dict[str, Tensor]:
        """The probability of each emotion."""
        present = outputs.reshape(len(outputs), -1, 2).softmax(dim=-1)[..., 1]
        return dict(zip(self.emotions, present.unbind(dim=1), strict=True))

    def scores(self, outputs: Floats, label: Floats) -> dict[str, float]:
        """The emotion scores of outputs (N, 2 E)."""
        chosen = outputs.reshape(len(outputs), -1, 2).argmax(axis=-1)
        return emotion_scores(chosen, label.astype(np.int64), self.emotions)

    def draw(self, folder: Path, tested: Split) -> list[Picture]:
        """Draw the scores of each emotion beside the accuracy of the more frequent answer."""
        present = tested.label.mean(axis=0)
        majority = np.maximum(present, 1 - present).tolist()
        return draw_emotions(folder, self.emotions, self.scores(*tested), majority)

    def _check(self, name: str, found: int, needed: int) -> None:
        if found != needed:
            raise UserError(
                f"{name}: there are {found}, but the {len(self.emotions)} in "
                f"task.objective.emotions need {needed}"
            )
