"""A small recurrent network in the place of the sequence models."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Output(NamedTuple):
    """hidden (B, T, D), memory (B, D) and a few auxiliary states."""

    hidden: Tensor
    memory: tuple[Tensor, ...]
    auxiliary: tuple[Tensor, ...] = ()


class Recurrent(nn.Module):
    """A gated recurrent unit whose last state is its memory."""

    auxiliary_weight = 0.5

    def __init__(self, vocabulary: int, width: int = 16, auxiliary: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.cell = nn.GRU(width, width, batch_first=True)
        self.decoder = nn.Linear(width, vocabulary)
        self.auxiliary = auxiliary
        self.memory_length = 3
        self.seen: list[tuple[int, int | None]] = []

    def forward(self, tokens: Tensor, memory: tuple[Tensor, ...] | None = None) -> Output:
        start = None if memory is None else memory[0].unsqueeze(0)
        self.seen.append((self.memory_length, None if memory is None else len(memory[0])))
        embedded = self.embedding(tokens)
        hidden, last = self.cell(embedded, start)
        return Output(hidden, (last[0],), (embedded,) if self.auxiliary else ())

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        return torch.log_softmax(self.decoder(hidden), dim=-1)

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        scores = self.decoder(hidden).transpose(1, 2)
        return functional.cross_entropy(scores, targets, reduction="none", ignore_index=-100)
