"""Real Lightning runs over streams of text: resuming, and texts that are too short."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from equipoise.data.sampling import BatchIndex, Shard
from equipoise.data.text.module import (
    IGNORED,
    Corpus,
    SegmentIndices,
    SequenceDataModule,
    TextDataModule,
    TextSegments,
    encode,
)
from equipoise.data.text.vocabulary import Characters, Words
from equipoise.errors import UserError

TEXT = "abcdefghij" * 20


class Alphabet(TextDataModule):
    """The letters a to j over and over, in splits of different lengths."""

    def __init__(self, lengths: tuple[int, int, int] = (200, 100, 50), **settings: Any) -> None:
        protocol: dict[str, Any] = {
            "batch_size": 4, "eval_batch_size": None, "segment_length": 8,
            "eval_segment_length": None, "memory_length": 8, "eval_memory_length": None,
            "vocabulary": None,
        }  # fmt: skip
        super().__init__(**{**protocol, **settings})
        self.lengths = lengths

    def read_corpus(self) -> Corpus:
        vocabulary = Characters.of(TEXT)
        train, val, test = (encode(TEXT[:n], vocabulary, "the alphabet") for n in self.lengths)
        return Corpus(vocabulary, {"train": train, "val": val, "test": test})


class Recorder(LightningModule):
    """Writes down which segments it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: list[tuple[int, list[int], bool]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append((self.current_epoch, batch["index"].tolist(), bool(batch["start"])))
        return self.weight * batch["tokens"].float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class SaveAfter(Callback):
    """Saves a checkpoint after the tenth step, in the middle of an epoch."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 10:
            trainer.save_checkpoint(self.file)


def fit(file: Path, checkpoint: Path | None = None) -> Recorder:
    module = Recorder()
    trainer = Trainer(
        max_steps=18, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=file.parent,
        limit_val_batches=0, callbacks=[SaveAfter(file)],
    )  # fmt: skip
    trainer.fit(module, Alphabet(), ckpt_path=checkpoint)
    return module


def test_a_run_goes_on_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    whole = fit(tmp_path / "ten.ckpt")
    rest = fit(tmp_path / "none.ckpt", tmp_path / "ten.ckpt")
    assert rest.seen == whole.seen[10:]
    assert [epoch for epoch, _, start in whole.seen if start] == [0, 1, 2]


def test_evaluation_takes_fewer_streams_where_the_text_is_short() -> None:
    data = Alphabet(lengths=(200, 100, 20))
    data.setup()
    (first, *_) = data.test_dataloader()
    assert first["tokens"].shape == (2, 8)
    (first, *_) = data.val_dataloader()
    assert first["tokens"].shape == (4, 8)


def test_evaluation_may_have_its_own_segments_and_streams() -> None:
    data = Alphabet(eval_batch_size=1, eval_segment_length=5)
    data.setup()
    assert next(iter(data.val_dataloader()))["tokens"].shape == (1, 5)
    assert next(iter(data.train_dataloader()))["tokens"].shape == (4, 8)


def test_inspection_tells_the_size_of_the_vocabulary() -> None:
    assert Alphabet().inspect() == {"vocabulary": 11}


def test_another_vocabulary_than_the_model_was_made_for_is_refused() -> None:
    with pytest.raises(UserError, match="vocabulary of 11, but the model was made for 12"):
        Alphabet(vocabulary=12).inspect()


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        ((32, 100, 50), "train text the alphabet has 32 tokens, .* segment of 8 in 4 streams"),
        ((200, 8, 50), "val text the alphabet has 8 tokens, .* segment of 8 in 1 stream:"),
        ((200, 100, 5), "test text the alphabet has 5 tokens"),
    ],
)
def test_a_text_shorter_than_one_segment_is_refused(
    lengths: tuple[int, int, int], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        Alphabet(lengths=lengths).inspect()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 0}, r"task.batch_size is 0: set it to 1 or more"),
        ({"segment_length": 0}, r"task.segment_length is 0"),
        ({"eval_segment_length": 0}, r"task.eval_segment_length is 0"),
        ({"memory_length": -1}, r"task.memory_length is -1: set it to 0 or more"),
        ({"eval_memory_length": -1}, r"task.eval_memory_length is -1"),
    ],
)
def test_impossible_lengths_are_refused(settings: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Alphabet(**settings)


def test_facts_name_the_text_its_hash_and_what_is_unknown() -> None:
    facts = Alphabet().facts("test")
    assert facts["text"] == "the alphabet"
    assert len(facts["text_sha256"]) == 64
    assert facts["tokens"] == 50
    assert facts["out_of_vocabulary_rate"] == 0


def test_all_but_start_is_moved() -> None:
    batch = {"tokens": torch.zeros(2, 3), "index": torch.zeros(2), "start": torch.tensor(True)}
    moved = SequenceDataModule().transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert {name: value.device.type for name, value in moved.items()} == {
        "tokens": "meta", "index": "meta", "start": "cpu",
    }  # fmt: skip
    assert moved["start"]


def batches(count: int, streams: int, length: int, shard: Shard | None = None) -> list[dict]:
    segments = TextSegments(torch.arange(count, dtype=torch.int32), streams, length)
    indices = SegmentIndices(streams, segments.segments, shard or Shard())
    return [segments[BatchIndex(0, rows)] for rows in indices.batches()]


@given(st.integers(2, 200), st.integers(1, 7), st.integers(1, 30))
def test_every_token_but_the_first_is_a_target_once(count: int, streams: int, length: int) -> None:
    found = torch.cat([batch["targets"].flatten() for batch in batches(count, streams, length)])
    assert sorted(found[found != IGNORED].tolist()) == list(range(1, count))


@given(st.integers(2, 200), st.integers(1, 7), st.integers(1, 30))
def test_targets_are_the_tokens_one_place_later_across_segments(
    count: int, streams: int, length: int
) -> None:
    whole = batches(count, streams, length)
    tokens = torch.cat([batch["tokens"] for batch in whole], dim=1)
    targets = torch.cat([batch["targets"] for batch in whole], dim=1)
    counted = targets != IGNORED
    assert torch.equal(targets[counted], tokens[counted] + 1)
    continued = counted[:, :-1]
    assert torch.equal(tokens[:, 1:][continued], targets[:, :-1][continued])


def test_only_the_first_batch_starts_and_the_last_may_be_shorter() -> None:
    whole = batches(50, streams=3, length=7)
    assert [bool(batch["start"]) for batch in whole] == [True, False, False]
    assert [batch["tokens"].shape for batch in whole] == [(3, 7), (3, 7), (3, 3)]


def test_shapes_and_types_are_those_of_a_batch_of_tokens() -> None:
    batch = batches(50, streams=3, length=7)[0]
    assert set(batch) == {"tokens", "targets", "index", "start"}
    assert batch["tokens"].dtype == batch["targets"].dtype == batch["index"].dtype == torch.int64
    assert batch["start"].dtype == torch.bool
    assert batch["start"].shape == ()


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_processes_of_a_run_share_the_streams(processes: int) -> None:
    alone = batches(100, streams=4, length=6)
    shared = [batches(100, 4, 6, Shard(rank, processes)) for rank in range(processes)]
    for place, batch in enumerate(alone):
        rows = torch.cat([own[place]["tokens"] for own in shared])
        order = torch.cat([own[place]["index"] for own in shared]).argsort()
        assert torch.equal(rows[order], batch["tokens"])
    assert all(len(own) == len(alone) for own in shared)


def test_a_split_is_encoded_with_its_hash_and_what_is_unknown() -> None:
    text = encode("a b \u00e9\n", Words.of("a b\n"), "notes")
    assert text.tokens.tolist() == [1, 2, 3, 0]
    assert text.unknown == 1
    assert text.out_of_vocabulary_rate == pytest.approx(1 / 4)
    assert text.characters == 6
    assert text.sha256 == hashlib.sha256("a b \u00e9\n".encode()).hexdigest()
    assert text.source == "notes"
