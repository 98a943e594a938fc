"""What the data modules of text share: a corpus, and streams of segments for each split."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from equipoise.data.loading import Batch, BatchLoader
from equipoise.data.module import SPLITS, SplitName, on_gpu, refuse_below, shard_of
from equipoise.data.sampling import BatchIndex, Shard
from equipoise.data.text.vocabulary import Vocabulary
from equipoise.errors import UserError

IGNORED = -100
"""The target where there is nothing to predict."""


@dataclass(frozen=True)
class EncodedText:
    """tokens: int32 (N,). unknown: how many of them are not in the vocabulary.

    sha256: of the text in UTF-8. source: how the user refers to the text. characters: its length.
    """

    tokens: Tensor
    unknown: int
    characters: int
    sha256: str
    source: str

    @property
    def out_of_vocabulary_rate(self) -> float:
        """The share of the tokens that are not in the vocabulary."""
        return self.unknown / max(len(self.tokens), 1)


@dataclass(frozen=True)
class Corpus:
    """The splits of one text and their common vocabulary."""

    vocabulary: Vocabulary
    splits: Mapping[SplitName, EncodedText]


def encode(text: str, vocabulary: Vocabulary, source: str) -> EncodedText:
    """Encode one split."""
    tokens, unknown = vocabulary.encode(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return EncodedText(tokens, unknown, len(text), digest, source)


def refuse_other_size(size: int, wanted: int | None, source: str) -> None:
    """Raise UserError if the vocabulary of a text does not have the requested size."""
    if wanted is not None and size != wanted:
        raise UserError(
            f"{source} has a vocabulary of {size}, but the model was made for {wanted}: give the "
            "text that it was trained on, or train again."
        )


class TextSegments:
    """A text of N tokens as `streams` pieces of equal length side by side, each cut into segments.

    A batch is the same segment of several streams: tokens (B, T); targets (B, T), the tokens
    shifted by one; index (B,); start, a bool scalar: whether the streams begin here, so that no
    memory may be carried in. Row stream * segments + segment identifies one segment. Each token but
    the first of the text is a target once; past the end of the text targets are -100. The last
    segment of the streams may be shorter.
    """

    def __init__(self, tokens: Tensor, streams: int, length: int) -> None:
        self.tokens = tokens
        self.streams = streams
        self.length = length
        self.stream_length = -(-(len(tokens) - 1) // streams)
        self.segments = -(-self.stream_length // length)

    def __len__(self) -> int:
        """The number of segments of all streams."""
        return self.streams * self.segments

    def __getitem__(self, index: BatchIndex) -> Batch:
        """The segments of the rows in `index`, which are at the same position in each stream."""
        stream, segment = index.rows // self.segments, int(index.rows[0]) % self.segments
        width = min(self.length, self.stream_length - segment * self.length)
        begin = stream * self.stream_length + segment * self.length
        places = begin.unsqueeze(1) + torch.arange(width)
        last = len(self.tokens) - 1
        targets = self.tokens[(places + 1).clamp(max=last)].long()
        return {
            "tokens": self.tokens[places.clamp(max=last)].long(),
            "targets": targets.masked_fill(places >= last, IGNORED),
            "index": index.rows,
            "start": torch.tensor(segment == 0),
        }


class SegmentIndices:
    """The segments in order, with one batch for each position in the streams of this process.

    Every process takes the same number of streams, so it must divide `streams`.
    """

    def __init__(self, streams: int, segments: int, shard: Shard) -> None:
        self.streams = torch.arange(streams)[shard.rank :: shard.world_size]
        self.segments = segments
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Record the epoch; the order is the same in every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of batches."""
        return self.segments

    def batches(self) -> tuple[Tensor, ...]:
        """The rows of each batch."""
        return tuple(self.streams * self.segments + place for place in range(self.segments))


class SequenceDataModule(LightningDataModule):
    """Batches {"tokens", "targets", "index", "start"}, of which `start` stays on the host."""

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move all but `start`: memory code reads it without waiting for the device."""
        moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return {**moved, "start": batch["start"]}


@dataclass(kw_only=True, eq=False)
class TextDataModule(SequenceDataModule, ABC):
    """Cut each split into `batch_size` streams; the next segment of each makes the next batch.

    A batch is {"tokens": int64 (B, T), "targets": int64 (B, T), -100 for none, "index": int64
    (B,), "start": bool scalar}. `batch_size` counts the streams of one process; a text too short
    for that many is evaluated in fewer. `segment_length` is T, `eval_segment_length` that of
    evaluation (None: the same). `memory_length` is how many positions before a segment a model may
    keep in training, `eval_memory_length` in evaluation (None: as many). `vocabulary` is the
    required size of the vocabulary; None: any. Every token of a split but its first is predicted
    once. The loaders resume within an epoch; each process of a distributed run takes its own
    streams.
    """

    batch_size: int
    eval_batch_size: int | None = None
    segment_length: int
    eval_segment_length: int | None = None
    memory_length: int
    eval_memory_length: int | None = None
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__init__()
        refuse_below(self, 1, "batch_size", "eval_batch_size")
        refuse_below(self, 1, "segment_length", "eval_segment_length")
        refuse_below(self, 0, "memory_length", "eval_memory_length")
        self._corpus: Corpus | None = None

    @abstractmethod
    def read_corpus(self) -> Corpus:
        """Read and encode all splits; raises UserError if they are not available."""

    @property
    def corpus(self) -> Corpus:
        """The encoded text, read when it is first needed."""
        if self._corpus is None:
            self._corpus = self.read_corpus()
        return self._corpus

    def inspect(self) -> dict[str, Any]:
        """Read the text and return the size of its vocabulary.

        Raises UserError if a split is too short, or if the vocabulary's size differs from the
        configuration's (for example a checkpoint's).
        """
        size = len(self.corpus.vocabulary)
        refuse_other_size(size, self.vocabulary, self.corpus.splits["train"].source)
        for name in SPLITS:
            self._check_length(name)
        return {"vocabulary": size}

    def setup(self, stage: str | None = None) -> None:
        """Read the text, unless it has been read."""
        self.inspect()

    def train_dataloader(self) -> BatchLoader:
        """The training segments in the order of the text."""
        return self._loader("train", self.batch_size, self.segment_length)

    def val_dataloader(self) -> BatchLoader:
        """The validation segments in the order of the text."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> BatchLoader:
        """The test segments in the order of the text."""
        return self._evaluation_loader("test")

    def vocabulary_state(self) -> dict[str, Any]:
        """The vocabulary as plain values, for the checkpoint."""
        return self.corpus.vocabulary.state()

    def facts(self, name: SplitName) -> dict[str, Any]:
        """Notes about a split beside its result."""
        text = self.corpus.splits[name]
        return {
            "text": text.source,
            "text_sha256": text.sha256,
            "tokens": len(text.tokens),
            "tokens_per_character": len(text.tokens) / text.characters,
            "out_of_vocabulary_rate": text.out_of_vocabulary_rate,
        }

    def _evaluation_loader(self, name: SplitName) -> BatchLoader:
        length = self.eval_segment_length or self.segment_length
        most = max((len(self.corpus.splits[name].tokens) - 1) // length, 1)
        processes = shard_of(self).world_size
        streams = self.eval_batch_size or self.batch_size
        return self._loader(name, max(min(streams, most // processes), 1), length)

    def _loader(self, name: SplitName, streams: int, length: int) -> BatchLoader:
        shard = shard_of(self)
        streams = streams * shard.world_size
        segments = TextSegments(self.corpus.splits[name].tokens, streams, length)
        indices = SegmentIndices(streams, segments.segments, shard)
        return BatchLoader(segments, indices, seed=0, num_workers=0, pin_memory=on_gpu(self))

    def _check_length(self, name: SplitName) -> None:
        """Raise UserError unless the split fills a segment, and training one per stream."""
        text: EncodedText = self.corpus.splits[name]
        evaluation = self.eval_segment_length or self.segment_length
        length = self.segment_length if name == "train" else evaluation
        streams = self.batch_size * shard_of(self).world_size if name == "train" else 1
        if len(text.tokens) - 1 < length * streams:
            raise UserError(
                f"The {name} text {text.source} has {len(text.tokens)} tokens, too few for one "
                f"segment of {length} in {streams} stream{'s' if streams > 1 else ''}: lower "
                "task.segment_length or task.batch_size, or give more text."
            )
