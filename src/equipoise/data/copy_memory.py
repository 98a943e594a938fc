"""The copy-memory problem: remember ten symbols over a long delay; generated, no download."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from equipoise.data.image_data_module import SPLITS_OF_STAGE, SplitName
from equipoise.data.indices import BatchIndex, EpochIndices, OrderedIndices, ShuffledIndices
from equipoise.data.loader import Batch, BatchLoader
from equipoise.data.random_streams import stream
from equipoise.data.sequence_data_module import SequenceDataModule
from equipoise.data.text_data_module import refuse_below
from equipoise.data.text_files import SPLITS
from equipoise.errors import UserError

REMEMBERED = 10
SYMBOLS = 8
BLANK = 0
RECALL = SYMBOLS + 1
VOCABULARY = SYMBOLS + 2


class CopySequences:
    """Sequences of T + 20 tokens around `symbols` (N, 10) with values 1 to 8.

    tokens: the symbols, T - 1 zeros, then 11 nines; targets: T + 10 zeros, then the symbols again.
    start is always true: no sequence continues another.
    Source: Arjovsky et al. 2016 (arXiv 1511.06464), in the form of the TCN experiments
    (arXiv 1803.01271).
    """

    def __init__(self, symbols: Tensor, delay: int) -> None:
        self.symbols = symbols
        self.delay = delay

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.symbols)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """Return the sequences of the rows in `index`."""
        symbols = self.symbols[index.rows].long()
        blanks = torch.full((len(symbols), self.delay + REMEMBERED), BLANK)
        question = torch.full((len(symbols), REMEMBERED + 1), RECALL)
        return {
            "tokens": torch.cat([symbols, blanks[:, : self.delay - 1], question], dim=1),
            "targets": torch.cat([blanks, symbols], dim=1),
            "index": index.rows,
            "start": torch.tensor(True),
        }


class CopyMemory(SequenceDataModule):
    """Sequences with a delay of `length`, drawn by the seed, each whole in one segment.

    Without a memory of the symbols the best loss is 10 ln 8 / (length + 20) nats a token.
    """

    def __init__(
        self,
        *,
        length: int = 100,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        seed: int = 0,
        train_size: int = 10000,
        val_size: int = 500,
        test_size: int = 1000,
        vocabulary: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("length", length), ("batch_size", batch_size),
                            ("eval_batch_size", eval_batch_size), ("train_size", train_size),
                            ("val_size", val_size), ("test_size", test_size)):  # fmt: skip
            refuse_below(name, value, 1)
        self.length = length
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.sizes: dict[SplitName, int] = {
            "train": train_size, "val": val_size, "test": test_size
        }  # fmt: skip
        if vocabulary not in (None, VOCABULARY):
            raise UserError(
                f"copy_memory has {VOCABULARY} symbols, but the model was made for {vocabulary}: "
                "train it anew on this task."
            )
        self.splits: dict[SplitName, CopySequences] = {}

    @property
    def memoryless_loss(self) -> float:
        """The loss, in nats a token, of a model that knows everything but the symbols."""
        return REMEMBERED * math.log(SYMBOLS) / (self.length + 2 * REMEMBERED)

    def inspect(self) -> dict[str, Any]:
        """Return the size of the vocabulary: blank, eight symbols, and the sign to recall."""
        return {"vocabulary": VOCABULARY}

    def setup(self, stage: str | None = None) -> None:
        """Draw the splits of a stage."""
        for name in SPLITS_OF_STAGE.get(stage, SPLITS):
            if name not in self.splits:
                generator = stream(self.seed, SPLITS.index(name))
                shape = (self.sizes[name], REMEMBERED)
                symbols = torch.randint(1, SYMBOLS + 1, shape, generator=generator)
                self.splits[name] = CopySequences(symbols.to(torch.uint8), self.length)

    def facts(self, name: SplitName) -> dict[str, Any]:
        """Return what to know about a split beside the result on it."""
        return {"memoryless_loss": self.memoryless_loss}

    def train_dataloader(self) -> BatchLoader:
        """Return the shuffled training sequences, or a fixed order for `overfit_batches`."""
        size, shard = self.sizes["train"], self.shard()
        if getattr(self.trainer, "overfit_batches", 0) > 0:
            return self._loader("train", OrderedIndices(size, self.batch_size, shard))
        return self._loader("train", ShuffledIndices(size, self.batch_size, self.seed, shard))

    def val_dataloader(self) -> BatchLoader:
        """Return the validation sequences."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> BatchLoader:
        """Return the test sequences."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, name: SplitName) -> BatchLoader:
        batch_size = self.eval_batch_size or self.batch_size
        return self._loader(name, OrderedIndices(self.sizes[name], batch_size, self.shard()))

    def _loader(self, name: SplitName, indices: EpochIndices) -> BatchLoader:
        return BatchLoader(self.splits[name], indices, seed=self.seed, num_workers=0)
