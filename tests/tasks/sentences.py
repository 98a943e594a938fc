"""A small encoder-decoder in the place of the transformers, and sentences for it to translate."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from recurrent import Output
from torch import Tensor, nn
from torch.nn import functional

from equipoise.data.loading import Batch, BatchLoader
from equipoise.data.sampling import BatchIndex, OrderedIndices, Shard
from equipoise.data.text.vocabulary import Subwords

WORDS = {"eins": "one", "zwei": "two", "drei": "three", "vier": "four", "fünf": "five"}
PAIRS = [
    (" ".join(source), " ".join(WORDS[word] for word in source))
    for first in WORDS
    for second in WORDS
    for source in ([first, second], [second, first, first, second])
] + list(WORDS.items())


class EncoderDecoder(nn.Module):
    """Gated recurrent units with attention in between; its memory is the decoder's last state."""

    auxiliary_weight = 0.0

    def __init__(self, vocabulary: int, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.encoder: nn.Module | None = nn.GRU(width, width, batch_first=True)
        self.cell = nn.GRU(width, width, batch_first=True)
        self.joined = nn.Linear(3 * width, width)
        self.decoder = nn.Linear(width, vocabulary)
        self.read: list[int] = []

    def encode(self, source: Tensor, present: Tensor) -> Tensor:
        assert self.encoder is not None
        embedded = self.embedding(source)
        return torch.cat([embedded, self.encoder(embedded)[0]], dim=-1)

    def decode(
        self, tokens: Tensor, encoded: Tensor, present: Tensor,
        memory: tuple[Tensor, ...] | None = None,
    ) -> Output:  # fmt: skip
        self.read.append(tokens.shape[1])
        start = None if memory is None else memory[0].transpose(0, 1)
        states, last = self.cell(self.embedding(tokens), start)
        keys = encoded[..., states.shape[-1] :]
        weights = (states @ keys.mT).masked_fill(~present.unsqueeze(1), -torch.inf).softmax(-1)
        hidden = torch.tanh(self.joined(torch.cat([states, weights @ encoded], dim=-1)))
        return Output(hidden, (last.transpose(0, 1),))

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        return torch.log_softmax(self.decoder(hidden), dim=-1)

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        scores = self.decoder(hidden).transpose(1, 2)
        return functional.cross_entropy(scores, targets, reduction="none", ignore_index=-100)


class Numbers(LightningDataModule):
    """Short rows of German numbers, the same in every split, in batches of 16."""

    def __init__(self, pairs: list[tuple[str, str]] | None = None) -> None:
        super().__init__()
        self.pairs = PAIRS if pairs is None else pairs
        text = "\n".join(side for pair in self.pairs for side in pair)
        self.vocabulary = Subwords.of(text, 280)
        sides = zip(*self.pairs, strict=True)
        self.source, self.target = map(self.vocabulary.encode_sentences, sides)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: BatchIndex) -> Batch:
        rows = index.rows.tolist()
        source, present = self._padded([self.source[row] for row in rows])
        target, counted = self._padded([self.target[row] for row in rows])
        tokens = target.roll(1, dims=1)
        tokens[:, 0] = self.vocabulary.first
        targets = target.masked_fill(~counted, -100)
        return {"source": source, "present": present, "tokens": tokens, "targets": targets,
                "index": index.rows}  # fmt: skip

    def train_dataloader(self) -> BatchLoader:
        world = getattr(self.trainer, "world_size", 1), getattr(self.trainer, "global_rank", 0)
        indices = OrderedIndices(len(self), 16, Shard(world[1], world[0]))
        return BatchLoader(self, indices, seed=0, num_workers=0)

    val_dataloader = test_dataloader = train_dataloader

    def sentences(self, split: str) -> list[tuple[str, str]]:
        return self.pairs

    def vocabulary_state(self) -> dict[str, Any]:
        return self.vocabulary.state()

    def facts(self, split: str) -> dict[str, Any]:
        return {"text": f"numbers for {split}", "pairs": len(self)}

    def _padded(self, sentences: list[list[int]]) -> tuple[Tensor, Tensor]:
        length = max(map(len, sentences))
        first = self.vocabulary.first
        rows = torch.tensor([row + [first] * (length - len(row)) for row in sentences])
        return rows, torch.arange(length) < torch.tensor([[len(row)] for row in sentences])
