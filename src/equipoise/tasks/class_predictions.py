"""The test predictions of a classification, for its report and its figures per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equipoise.equilibrium.processes import from_all_processes
from equipoise.report.confusion import draw_confusion, draw_mistakes
from equipoise.report.page import Picture

MOST_MISTAKES = 12

Mistakes = dict[str, Tensor]
"""By name: image, the classes `true` and `predicted`, and their probabilities `of_true` and
`of_predicted`; `surest` is `of_predicted`, or 0 if the prediction is right."""


class ClassPredictions:
    """The true and the predicted class of every test sample, and the samples that are most wrong.

    The most wrong samples are those for which the network was surest of a wrong class. Everything
    stays on the device until `gather`, without a synchronisation: two numbers per sample, and at
    most twelve images.
    """

    def __init__(self) -> None:
        self.true: list[Tensor] = []
        self.predicted: list[Tensor] = []
        self.mistakes: Mistakes = {}

    def clear(self) -> None:
        """Forget an earlier test."""
        self.true, self.predicted, self.mistakes = [], [], {}

    def update(self, image: Tensor, logits: Tensor, label: Tensor) -> None:
        """Add a batch: images (B, C, H, W), logits (B, classes) and labels (B,)."""
        probabilities = logits.detach().float().softmax(dim=1)
        of_predicted, predicted = probabilities.max(dim=1)
        self.true.append(label)
        self.predicted.append(predicted)
        batch = {
            "image": image.detach(),
            "true": label,
            "predicted": predicted,
            "of_true": probabilities.gather(1, label.unsqueeze(1)).squeeze(1),
            "of_predicted": of_predicted,
            "surest": of_predicted.masked_fill(predicted == label, 0.0).nan_to_num(0.0),
        }
        self.mistakes = _worst([self.mistakes, _worst([batch])])

    def gather(self) -> None:
        """Bring everything to the host, from all processes, at the end of a test."""
        if not self.true:
            return
        own = (
            torch.cat(self.true).cpu(),
            torch.cat(self.predicted).cpu(),
            {name: values.cpu() for name, values in self.mistakes.items()},
        )
        true, predicted, mistakes = zip(*from_all_processes(own), strict=True)
        self.true, self.predicted = [torch.cat(true)], [torch.cat(predicted)]
        worst = _worst(mistakes)
        wrong = worst["surest"] > 0
        self.mistakes = {name: values[wrong].float() for name, values in worst.items()}

    def details(self, classes: int, names: Sequence[str]) -> dict[str, Any]:
        """The accuracy of each class, 0 for one without samples, for metrics.json."""
        if not self.true:
            return {}
        true, predicted = self.true[0], self.predicted[0]
        correct, total = (
            torch.bincount(labels, minlength=classes) for labels in (true[true == predicted], true)
        )
        values = (correct / total.clamp(min=1)).tolist()
        names = names_of_all(classes, names)
        by_name = dict(zip(names, values, strict=True))
        return {"accuracy_per_class": values, "accuracy_by_class": by_name}

    def pictures(self, folder: Path, classes: int, names: Sequence[str]) -> list[Picture]:
        """Draw which classes are confused, and the most wrong samples; nothing without a test."""
        if not self.true:
            return []
        names = names_of_all(classes, names)
        true, predicted = self.true[0].numpy(), self.predicted[0].numpy()
        confusion = draw_confusion(folder, true, predicted, names)
        return [*confusion, *draw_mistakes(folder, self.mistakes, names)]


def _worst(parts: Sequence[Mistakes]) -> Mistakes:
    """The most wrong samples of several parts whose images have the size of the first part's."""
    parts = [part for part in parts if part]
    shape = parts[0]["image"].shape[1:]
    parts = [part for part in parts if part["image"].shape[1:] == shape]
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    chosen = joined["surest"].topk(min(MOST_MISTAKES, len(joined["surest"]))).indices
    return {name: values[chosen] for name, values in joined.items()}


def names_of_all(classes: int, names: Sequence[str]) -> list[str]:
    """A unique name for each class: the number replaces a missing name or follows a shared one."""
    known = [str(name) for name in names[:classes]]
    known += [str(number) for number in range(len(known), classes)]
    counts = Counter(known)
    return [f"{name} ({k})" if counts[name] > 1 else name for k, name in enumerate(known)]
