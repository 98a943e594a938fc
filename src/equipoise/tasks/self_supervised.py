"""Self-supervised learning of features that two views of an image share, and their evaluation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from equipoise.equilibrium.processes import from_all_processes
from equipoise.nn import RedundancyReduction, Terms
from equipoise.nn.over_processes import per_process
from equipoise.report.embeddings import draw_correlation, draw_projection
from equipoise.report.page import Picture
from equipoise.tasks.embeddings import (
    CorrelationMetric,
    collapse_warning,
    effective_rank,
    spread,
)
from equipoise.tasks.linear_probe import fit_probe, progress
from equipoise.tasks.nearest_neighbours import MemoryBank
from equipoise.tasks.objective import MakeOptimizer, Objective
from equipoise.tasks.schedules import Schedule

UNLABELLED = -1
STATISTICS = ("effective_rank", "spread")
OF_LOSS = ("loss", "loss_per_feature", "diagonal", "off_diagonal", "off_diagonal_size")


class SelfSupervised(Objective):
    """Trains an encoder and a projector on two views of each image, without labels.

    `model(first, second)` returns the embeddings of both views and their features; `model.encoder`
    maps images (B, C, H, W) to features (B, h). A batch holds first and second, label (B,), -1
    for none, and index (B,); in validation and test it also holds image, the whole picture.
    The data module's `bank_dataloader` yields labelled training images.

    Labels serve only for evaluation. `knn_accuracy` is that of weighted nearest neighbours in the
    bank. An online probe, a linear classifier, is trained beside the network, which receives no
    gradient from it; the test trains another probe offline, on the features of the bank. Metrics of
    a split: these accuracies, from 0 to 1; its loss, also per feature; the mean diagonal,
    off-diagonal and absolute off-diagonal of its cross-correlation; effective rank and spread of
    the features, which show a collapse.

    loss: compares embeddings. classes: the number of classes, 0 without labels. neighbours,
    temperature: for `knn_accuracy`. probe_epochs, seed: of the offline probe. untrained: also
    measure the encoder before the first step.
    """

    untrained_accuracies: Tensor

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        loss: nn.Module,
        classes: int = 0,
        neighbours: int = 200,
        temperature: float = 0.5,
        probe_epochs: int = 200,
        untrained: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(model, make_optimizer, schedule)
        network: Any = model
        self.loss = cast(RedundancyReduction, loss)
        self.classes = classes
        self.neighbours, self.temperature = neighbours, temperature
        self.probe_epochs, self.measure_untrained, self.seed = probe_epochs, untrained, seed
        self.probe = nn.Linear(network.encoder.features, classes) if classes else None
        self.register_buffer("untrained_accuracies", torch.full((2,), math.nan))
        self.correlations = nn.ModuleDict(
            {stage: self._correlation_metric(network.width) for stage in ("val", "test")}
        )
        if classes:
            self.metrics.update({stage: label_metrics(classes) for stage in ("val", "test")})
        else:
            self.metrics.update({stage: nn.ModuleDict() for stage in ("val", "test")})
        self.bank: tuple[Tensor, Tensor] | None = None
        self.memory: MemoryBank | None = None
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.pictured: dict[str, Tensor] = {}

    def _correlation_metric(self, width: int) -> CorrelationMetric:
        kind = self.loss.normalization
        return CorrelationMetric(
            width, kind == "unit_length", unbiased=kind != "batch_norm",
            eps=1e-5 if kind == "batch_norm" else 0.0,
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> the encoder's features (B, h)."""
        network: Any = self.model
        features: Tensor = network.encoder(image)
        return features

    def predict_step(self, batch: dict[str, Tensor], batch_index: int = 0) -> dict[str, Tensor]:
        """{"features" (B, h)} of the images, and "probabilities" (B, classes) by the online probe.

        Without labels in training there is no probe, and no probabilities.
        """
        features = self(batch["image"]).float()
        if self.probe is None:
            return {"features": features}
        return {"features": features, "probabilities": self._probed(features).softmax(dim=1)}

    def _probed(self, features: Tensor) -> Tensor:
        """The online probe's logits in its weights' type, which is float64 in precision 64-true."""
        assert self.probe is not None
        logits: Tensor = self.probe(features.to(self.probe.weight.dtype))
        return logits

    def on_fit_start(self) -> None:
        """Measure the untrained encoder on the test images, once per run."""
        if self.classes and self.measure_untrained and self.untrained_accuracies.isnan().any():
            data: Any = self._data()
            data.setup("test")
            self._fill_bank()
            read = self._encoded(data.test_dataloader())
            self.untrained_accuracies.copy_(torch.tensor(self._offline_accuracies(*read)))
            self._empty_bank()

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> dict[str, Tensor]:
        """The loss and its components."""
        views = self.model(batch["first"], batch["second"])
        terms = self.loss(views.first, views.second)
        loss, extra = self.with_regularization(terms.loss, self.readout)
        numbers = correlation_numbers(terms)
        if self.probe is not None:
            logits = self._probed(views.first_features.detach())
            known = batch["label"] != UNLABELLED
            # adds a gradient, but no value: the loss shown is the objective's
            count = per_process(known.sum())
            cost = functional.cross_entropy(
                logits, batch["label"], ignore_index=UNLABELLED, reduction="sum"
            ) / torch.where(count > 0, count, 1)
            loss = loss + (cost - cost.detach())
            hits = (logits.argmax(dim=1) == batch["label"]) & known
            numbers["online_probe_accuracy"] = hits.sum() / known.sum()
        return {**numbers, **extra, "loss": loss}

    def on_validation_epoch_start(self) -> None:
        """Encode the bank with the present weights."""
        self._fill_bank()

    def on_test_epoch_start(self) -> None:
        """Encode the bank."""
        self._fill_bank()

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the validation metrics."""
        self._evaluate("val", batch)

    def test_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the test metrics."""
        self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: dict[str, Tensor]) -> None:
        views = self.model(batch["first"], batch["second"])
        metric: Any = self.correlations[stage]
        metric.update(views.first.float(), views.second.float())
        features, label = self(batch["image"]).float(), batch["label"]
        self.seen.append((features.cpu(), label.cpu()))
        if self.memory is None:
            return
        metrics, known = self.stage_metrics(stage), label != UNLABELLED
        features, label = features[known], label[known]
        if len(label):
            logits = self._probed(features)
            metrics["knn_accuracy"].update(self.memory.scores(features), label)
            metrics["online_probe_accuracy"].update(logits, label)
            metrics["online_probe_loss"].update(functional.cross_entropy(logits, label))

    def logged(self, stage: str) -> set[str]:
        """The names under which the metrics of "val" or "test" are logged."""
        return super().logged(stage) | {f"{stage}/{name}" for name in (*OF_LOSS, *STATISTICS)}

    def _close(self, stage: str) -> None:
        super()._close(stage)
        metric: Any = self.correlations[stage]
        terms = self.loss.of_correlation(metric.compute().float())
        metric.reset()
        for name, value in {**correlation_numbers(terms), "loss": terms.loss}.items():
            self.log(f"{stage}/{name}", value)
        features, labels = joined(self.seen)
        self.seen = []
        self._judge(stage, features if self.bank is None else self.bank[0])
        if stage == "test":
            self.pictured = {"correlation": terms.correlation.cpu()}
            self.pictured |= {"features": features, "labels": labels}
            if self.bank is not None:
                self.log("test/linear_probe_accuracy", self._probe_accuracy(features, labels))
        self._empty_bank()

    def _judge(self, stage: str, features: Tensor) -> None:
        """Log the features' effective rank and spread, and warn of a collapse."""
        numbers = {"effective_rank": effective_rank(features), "spread": spread(features)}
        for name, value in numbers.items():
            self.log(f"{stage}/{name}", value)
        advice = collapse_warning(numbers["effective_rank"], numbers["spread"], features.shape[1])
        if advice is not None and self.trainer.is_global_zero:
            warnings.warn(advice, stacklevel=2)

    def details(self) -> dict[str, Any]:
        """How each accuracy was measured, and the accuracies of the untrained encoder."""
        if not self.classes:
            return {}
        details: dict[str, Any] = {"protocols": self.protocols()}
        if not self.untrained_accuracies.isnan().any():
            names = ("knn_accuracy", "linear_probe_accuracy")
            values = self.untrained_accuracies.tolist()
            details["untrained_encoder"] = dict(zip(names, values, strict=True))
        return details

    def protocols(self) -> dict[str, str]:
        """Each accuracy's protocol in words, since results differ by points between protocols."""
        return {
            "knn_accuracy": f"nearest neighbours among labelled training images, k = "
            f"{self.neighbours}, weighted by exp(cosine / {self.temperature:g}), features of the "
            "encoder",
            "online_probe_accuracy": "linear classifier trained beside the encoder on augmented "
            "views, by its optimiser, without a gradient into it",
            "linear_probe_accuracy": f"offline: linear classifier on the frozen encoder's features "
            f"of training images without augmentation, Adam 0.001, weight decay 1e-06, "
            f"{self.probe_epochs} epochs, batch 512; batch norms frozen",
        }

    def pictures(self, folder: Path) -> list[Picture]:
        """The cross-correlation of the last test, and its features in two dimensions."""
        if not self.pictured:
            return []
        names: Sequence[str] = getattr(self._data(), "class_names", [])
        features, labels = self.pictured["features"], self.pictured["labels"]
        return [
            draw_correlation(self.pictured["correlation"], folder / "correlation.png"),
            draw_projection(features, labels, names, folder / "projection.png"),
        ]

    def _data(self) -> Any:
        return getattr(self.trainer, "datamodule", None)

    def _fill_bank(self) -> None:
        """Encode the bank with the present weights; each process encodes a part of it."""
        if self.classes:
            self.bank = joined([self._encoded(self._data().bank_dataloader())])
            features, labels = (part.to(self.device) for part in self.bank)
            self.memory = MemoryBank(
                features, labels, self.classes, self.neighbours, self.temperature
            )

    def _empty_bank(self) -> None:
        self.bank = self.memory = None

    @torch.no_grad()
    def _encoded(self, loader: Any) -> tuple[Tensor, Tensor]:
        """Features and labels of this process's part of the images, on the host."""
        training = self.model.training
        self.model.eval()
        parts = []
        for batch in progress(loader, desc="Features"):
            precision = self.trainer.precision_plugin
            images = precision.convert_input(batch["image"].to(self.device, non_blocking=True))
            with precision.forward_context():
                parts.append((self(images).float().cpu(), batch["label"]))
        loader.shut_down()
        self.model.train(training)
        return stacked(parts)

    def _offline_accuracies(self, features: Tensor, labels: Tensor) -> tuple[float, float]:
        """Accuracy of nearest neighbours and of an offline probe, on features of all processes."""
        features, labels = joined([(features, labels)])
        known = labels != UNLABELLED
        assert self.memory is not None
        scores = self.memory.scores(features[known].to(self.device)).cpu()
        neighbours = (scores.argmax(dim=1) == labels[known]).float().mean()
        return float(neighbours), self._probe_accuracy(features, labels)

    def _probe_accuracy(self, features: Tensor, labels: Tensor) -> float:
        """The accuracy on `features` of a classifier trained on the bank; every process agrees."""
        assert self.bank is not None
        with torch.inference_mode(False), torch.enable_grad():
            bank, classes = (part.clone().to(self.device) for part in self.bank)
            classifier = fit_probe(
                bank, classes, self.classes, epochs=self.probe_epochs, seed=self.seed
            )
        known = labels != UNLABELLED
        logits = classifier(features[known].to(self.device)).cpu()
        return float((logits.argmax(dim=1) == labels[known]).float().mean())


def label_metrics(classes: int) -> nn.ModuleDict:
    """The metrics that need labels, gathered from all processes."""
    names = ("knn_accuracy", "online_probe_accuracy")
    accuracies = {name: MulticlassAccuracy(classes, average="micro") for name in names}
    return nn.ModuleDict({**accuracies, "online_probe_loss": MeanMetric()})


def correlation_numbers(terms: Terms) -> dict[str, Tensor]:
    """Figures of a loss and its cross-correlation (d, d) that are comparable across d."""
    width = len(terms.correlation)
    diagonal = terms.correlation.diagonal()
    pairs = max(width * (width - 1), 1)
    return {
        "loss_per_feature": terms.loss.detach() / width,
        "diagonal": diagonal.mean(),
        "off_diagonal": (terms.correlation.sum() - diagonal.sum()) / pairs,
        "off_diagonal_size": (terms.correlation.abs().sum() - diagonal.abs().sum()) / pairs,
    }


def joined(parts: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Features and labels of all processes; every process must call this."""
    return stacked(from_all_processes(stacked(list(parts))))


def stacked(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The rows of all parts."""
    features, labels = zip(*parts, strict=True)
    return torch.cat(features), torch.cat(labels)
