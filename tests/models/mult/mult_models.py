"""Small MulT networks in float64, and streams for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from equipoise.models import MulT
from equipoise.models.mult.model import Prediction
from equipoise.models.mult.streams import MODALITIES

FEATURES = (6, 3, 4)
LENGTHS = (4, 7, 5)
NO_DROPOUT: dict[str, Any] = {
    "attention_dropout": [0.0, 0.0, 0.0],
    "relu_dropout": 0.0,
    "residual_dropout": 0.0,
    "embedding_dropout": 0.0,
}
PADDING = ((0, 3, 4), (2, 0, 7), (1, 1, 0))
"""Rows of zeros in front, of each stream and sample; two streams are nothing else."""


def mult(*equilibrium: Any, **changes: Any) -> MulT:
    """A network without dropout, the same at each call."""
    torch.manual_seed(0)
    settings = {"features": FEATURES, "width": 8, "heads": 2, "layers": 2, **NO_DROPOUT}
    return MulT(*equilibrium, **{**settings, **changes}).double()


def streams(
    padding: Sequence[Sequence[int]] = PADDING, seed: int = 0, lengths: Sequence[int] = LENGTHS
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    batch = {}
    for modality, length, features, rows in zip(
        MODALITIES, lengths, FEATURES, padding, strict=True
    ):
        shape = (len(rows), length, features)
        stream = torch.randn(shape, generator=generator, dtype=torch.float64)
        for sample, count in enumerate(rows):
            stream[sample, :count] = 0
        batch[modality] = stream
    return batch


def loss(prediction: Prediction) -> Tensor:
    total = prediction.outputs.square().sum() + prediction.hidden.sin().sum()
    return total if prediction.auxiliary is None else total + prediction.auxiliary
