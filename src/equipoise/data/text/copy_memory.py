"""The copy-memory problem: remember ten symbols over a long delay; generated, no download."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from equipoise.data.loading import Batch
from equipoise.data.module import SPLITS, SplitDataModule, SplitName, refuse_below
from equipoise.data.sampling import BatchIndex, stream
from equipoise.data.text.module import SequenceDataModule
from equipoise.errors import UserError

REMEMBERED = 10
SYMBOLS = 8
BLANK = 0
RECALL = SYMBOLS + 1
VOCABULARY = SYMBOLS + 2


@dataclass(eq=False)
class CopySequences:
    """Sequences of T + 20 tokens around `symbols` (N, 10) with values 1 to 8.

    tokens: the symbols, T - 1 zeros, then 11 nines; targets: T + 10 zeros, then the symbols again.
    start is always true: no sequence continues another.
    Source: Arjovsky et al. 2016 (arXiv 1511.06464), in the form of the TCN experiments
    (arXiv 1803.01271).
    """

    symbols: Tensor
    delay: int

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self.symbols)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """The sequences of the rows in `index`."""
        symbols = self.symbols[index.rows].long()
        blanks = torch.full((len(symbols), self.delay + REMEMBERED), BLANK)
        question = torch.full((len(symbols), REMEMBERED + 1), RECALL)
        return {
            "tokens": torch.cat([symbols, blanks[:, : self.delay - 1], question], dim=1),
            "targets": torch.cat([blanks, symbols], dim=1),
            "index": index.rows,
            "start": torch.tensor(True),
        }


@dataclass(kw_only=True, eq=False)
class CopyMemory(SequenceDataModule, SplitDataModule):
    """Sequences with a delay of `length`, drawn by the seed, each whole in one segment.

    Without a memory of the symbols the best loss is 10 ln 8 / (length + 20) nats per token.
    """

    length: int = 100
    batch_size: int = 32
    train_size: int = 10000
    val_size: int = 500
    test_size: int = 1000
    vocabulary: int | None = None
    num_workers: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        refuse_below(self, 1, "length", "train_size", "val_size", "test_size")
        if self.vocabulary not in (None, VOCABULARY):
            raise UserError(
                f"copy_memory has {VOCABULARY} symbols, but the model was made for "
                f"{self.vocabulary}: retrain it on this task."
            )

    @property
    def memoryless_loss(self) -> float:
        """The loss, in nats per token, of a model that knows everything but the symbols."""
        return REMEMBERED * math.log(SYMBOLS) / (self.length + 2 * REMEMBERED)

    def inspect(self) -> dict[str, Any]:
        """The size of the vocabulary: blank, eight symbols, and the sign to recall."""
        return {"vocabulary": VOCABULARY}

    def read_split(self, name: SplitName) -> CopySequences:
        """Draw one split."""
        sizes = {"train": self.train_size, "val": self.val_size, "test": self.test_size}
        generator = stream(self.seed, SPLITS.index(name))
        symbols = torch.randint(1, SYMBOLS + 1, (sizes[name], REMEMBERED), generator=generator)
        return CopySequences(symbols.to(torch.uint8), self.length)

    def facts(self, name: SplitName) -> dict[str, Any]:
        """Notes about a split beside its result."""
        return {"memoryless_loss": self.memoryless_loss}
