"""What the data modules of running text share: streams of segments for each split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from equipoise.data.corpus import Corpus, EncodedText
from equipoise.data.loading import BatchLoader
from equipoise.data.module import SPLITS, SplitName, refuse_below, shard_of
from equipoise.data.sequence_data_module import SequenceDataModule
from equipoise.data.text_segments import SegmentIndices, TextSegments
from equipoise.errors import UserError


@dataclass(kw_only=True, eq=False)
class TextDataModule(SequenceDataModule, ABC):
    """Cut each split into `batch_size` streams, whose next segments make the next batch.

    A batch is {"tokens": int64 (B, T), "targets": int64 (B, T), -100 where there is none, "index":
    int64 (B,), "start": bool scalar}. `batch_size` counts the streams of one process; a text too
    short for so many is evaluated in fewer. `segment_length` is T, `eval_segment_length` that of
    evaluation (None: the same). `memory_length` is how many positions before a segment a model may
    keep in training, `eval_memory_length` in evaluation (None: as many). `vocabulary` is the size
    that the vocabulary must have; None: whatever the text has. Every token of a split but its
    first is predicted once. The loaders resume within an epoch; each process of a distributed run
    takes its own streams.
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
        """Read and encode all splits; raises UserError when they cannot be had."""

    @property
    def corpus(self) -> Corpus:
        """The encoded text, read when it is first needed."""
        if self._corpus is None:
            self._corpus = self.read_corpus()
        return self._corpus

    def inspect(self) -> dict[str, Any]:
        """Read the text and return the size of its vocabulary.

        Raises UserError where a split is too short, or the vocabulary has not the size that the
        configuration, of a checkpoint say, asks for.
        """
        size = len(self.corpus.vocabulary)
        if self.vocabulary is not None and size != self.vocabulary:
            raise UserError(
                f"{self.corpus.splits['train'].source} has a vocabulary of {size}, but the model "
                f"was made for {self.vocabulary}: give the text that it was trained on, or train "
                "anew."
            )
        for name in SPLITS:
            self._check_length(name)
        return {"vocabulary": size}

    def setup(self, stage: str | None = None) -> None:
        """Read the text, unless it has been read."""
        self.inspect()

    def train_dataloader(self) -> BatchLoader:
        """Return the training segments in the order of the text."""
        return self._loader("train", self.batch_size, self.segment_length)

    def val_dataloader(self) -> BatchLoader:
        """Return the validation segments in the order of the text."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> BatchLoader:
        """Return the test segments in the order of the text."""
        return self._evaluation_loader("test")

    def vocabulary_state(self) -> dict[str, Any]:
        """Return the vocabulary as plain values, for the checkpoint."""
        return self.corpus.vocabulary.state()

    def facts(self, name: SplitName) -> dict[str, Any]:
        """Return what to know about a split beside the result on it."""
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
        wanted = self.eval_batch_size or self.batch_size
        return self._loader(name, max(min(wanted, most // processes), 1), length)

    def _loader(self, name: SplitName, streams: int, length: int) -> BatchLoader:
        shard = shard_of(self)
        streams = streams * shard.world_size
        segments = TextSegments(self.corpus.splits[name].tokens, streams, length)
        indices = SegmentIndices(streams, segments.segments, shard)
        return BatchLoader(segments, indices, seed=0, num_workers=0)

    def _check_length(self, name: SplitName) -> None:
        """Raise UserError unless the split fills a segment, and training one in each stream."""
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
