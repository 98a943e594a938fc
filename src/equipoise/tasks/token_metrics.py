"""Metrics of a sequence of tokens, over a whole split and all processes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

IGNORED = -100
"""The target where there is nothing to predict."""


class Perplexity(MeanMetric):
    """exp of the mean loss in nats."""

    def compute(self) -> Tensor:
        """Return the perplexity of what was seen."""
        return super().compute().exp()


class BitsPerToken(MeanMetric):
    """The mean loss in bits."""

    def compute(self) -> Tensor:
        """Return the bits per token of what was seen."""
        return super().compute() / math.log(2)


class UnigramEntropy(Metric):
    """-sum_w p(w) ln p(w) in nats, with p the frequencies of the targets that were seen.

    No model that looks at nothing but the frequencies of the split can have a lower loss on it.
    """

    counts: Tensor

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        counts = torch.zeros(vocabulary + 1, dtype=torch.long)
        self.add_state("counts", counts, dist_reduce_fx="sum")

    def update(self, targets: Tensor) -> None:
        """Count targets; those that are ignored fall into a place of their own."""
        ignored = len(self.counts) - 1
        places = targets.masked_fill(targets == IGNORED, ignored).flatten()
        self.counts.scatter_add_(0, places, torch.ones_like(places))

    def compute(self) -> Tensor:
        """Return the entropy."""
        counts = self.counts[:-1].cpu().double()
        return torch.special.entr(counts / counts.sum()).sum()


class ExactMatch(MeanMetric):
    """The share of the sequences whose tokens are all predicted."""

    def update(self, correct: Tensor) -> None:  # type: ignore[override]
        """Take whether each token is predicted, (B, R)."""
        super().update(correct.all(dim=1).float())
