"""Dividing a labelled set so that every part has the same mixture of classes."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_split(
    labels: Tensor, fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Divide the rows of `labels` (N,) into the rest and a held-out `fraction`, both ascending.

    The rows, shuffled and then sorted by class, are sampled at equal distances, so each class is
    held out in proportion to within one row. round(fraction * N) rows are held out.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    held_count = round(fraction * len(labels))
    distance = len(labels) / max(held_count, 1)
    positions = ((torch.arange(held_count, dtype=torch.float64) + 0.5) * distance).long()
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[by_class[positions]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()
