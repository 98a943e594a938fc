"""Pairs of sentences: batches, filters, vocabulary, and real Lightning runs that resume."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from equipoise.data.text.parallel import ParallelDataModule
from equipoise.data.text.sentence_pairs import ParallelCorpus, SentencePairs
from equipoise.data.text.vocabulary import vocabulary_from_state
from equipoise.errors import UserError
from tests.data.text.pair_writing import ENGLISH, GERMAN

pytest.importorskip("tokenizers")


class Phrases(ParallelDataModule):
    """The phrases of the tests, `repeats` times, a word longer each time."""

    def __init__(self, repeats: int = 8, empty: int = 0, **settings: Any) -> None:
        protocol: dict[str, Any] = {
            "batch_size": 8, "batch_tokens": 96, "max_length": 32, "subwords": 280,
        }  # fmt: skip
        super().__init__(**{**protocol, **settings})
        self.repeats = repeats
        self.empty = empty

    def read_corpus(self) -> ParallelCorpus:
        def side(phrases: tuple[str, ...]) -> list[str]:
            return [p + " x" * number for number in range(self.repeats) for p in phrases]

        train = SentencePairs(side(GERMAN), side(ENGLISH), "the phrases", self.empty)
        val = SentencePairs(GERMAN, ENGLISH, "the phrases")
        return ParallelCorpus(("de", "en"), {"train": train, "val": val, "test": val})


def decoded(data: ParallelDataModule, tokens: Tensor) -> str:
    return vocabulary_from_state(data.vocabulary_state()).decode(tokens.tolist())


def test_the_index_names_the_sentences() -> None:
    data = Phrases()
    data.setup("fit")
    sentences = data.sentences("train")
    visited = set()
    for batch in data.train_dataloader():
        for place, row in enumerate(batch["index"].tolist()):
            source, target = sentences[row]
            assert decoded(data, batch["source"][place]) == source
            assert decoded(data, batch["tokens"][place]) == target
            visited.add(row)
    assert visited == set(range(len(sentences)))


def test_batches_keep_their_limits() -> None:
    data = Phrases(eval_batch_size=2)
    data.setup()
    for batch in data.train_dataloader():
        longest = max(batch["source"].shape[1], batch["targets"].shape[1])
        assert len(batch["index"]) * longest <= 96
        assert len(batch["index"]) <= 8
    assert sorted(len(batch["index"]) for batch in data.val_dataloader()) == [1, 2, 2]
    visited = torch.cat([batch["index"] for batch in data.test_dataloader()])
    assert sorted(visited.tolist()) == list(range(5))


def test_longer_pairs_are_left_out_counted_and_reported() -> None:
    limit = 16
    data = Phrases(max_length=limit, empty=3)
    with pytest.warns(
        UserWarning, match=r"left out: \d+ of 43 for train with .*; 3 of 43 for train with"
    ):
        data.setup("fit")
    facts = data.facts("train")
    assert facts["left_out"] == {"too_long": 40 - facts["pairs"], "empty": 3}
    assert 0 < facts["pairs"] == len(data.sentences("train")) < 40
    assert all(max(b["source"].shape[1], b["targets"].shape[1]) <= limit
               for b in data.train_dataloader())  # fmt: skip
    assert facts["tokens"]["de"] == sum(int(b["present"].sum()) for b in data.train_dataloader())


def test_without_anything_left_out_there_is_no_warning() -> None:
    data = Phrases(repeats=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.setup("fit")
    facts = data.facts("val")
    assert facts["left_out"] == {"too_long": 0, "empty": 0}
    assert facts["languages"] == "de to en"
    assert facts["text"] == "the phrases"
    assert facts["text_sha256"] == data.facts("test")["text_sha256"]
    assert facts["text_sha256"] != data.facts("train")["text_sha256"]


def test_a_split_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(UserError, match=r"Each of the 40 train pairs .* raise it to \d+ or more"):
        Phrases(max_length=2).setup("fit")


def test_both_languages_share_a_vocabulary_that_a_checkpoint_keeps() -> None:
    data = Phrases()
    size = data.inspect()["vocabulary"]
    assert 257 <= size <= 280
    state = data.vocabulary_state()
    assert state["languages"] == ["de", "en"]
    assert Phrases().vocabulary_state() == state
    for text in ("eine Katze", "the foxes"):
        tokens = vocabulary_from_state(state).encode(text).tokens
        assert len(tokens) < len(text)
    assert Phrases(vocabulary=size).inspect() == {"vocabulary": size}
    with pytest.raises(UserError, match=f"a vocabulary of {size}, but the model was made for 9"):
        Phrases(vocabulary=9).inspect()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"source": "de", "target": "de"}, r"task.source and task.target are both de"),
        ({"batch_tokens": 31}, r"task.batch_tokens=31 has no room .* task.max_length=32"),
        ({"max_length": 1}, r"task.max_length is 1: set it to 2 or more"),
        ({"batch_size": 0}, r"task.batch_size is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Phrases(**settings)


def test_too_few_subwords_are_refused() -> None:
    with pytest.raises(UserError, match=r"task.subwords is 256: set it to 257"):
        Phrases(subwords=256).inspect()


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"pip install 'equipoise\[translation\]'\.$"):
        Phrases(repeats=3).inspect()


class Recorder(LightningModule):
    """Writes down which pairs it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: list[list[int]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append(batch["index"].tolist())
        return self.weight * batch["tokens"].float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class SaveAfter(Callback):
    """Saves a checkpoint after a step in the middle of the second epoch."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 10:
            trainer.save_checkpoint(self.file)


def fit(file: Path, checkpoint: Path | None = None, **settings: Any) -> list[list[int]]:
    module = Recorder()
    trainer = Trainer(
        max_steps=20, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[SaveAfter(file)],
        limit_val_batches=0, **settings,
    )  # fmt: skip
    trainer.fit(module, datamodule=Phrases(), ckpt_path=checkpoint, weights_only=False)
    return module.seen


def test_training_resumes_within_an_epoch(tmp_path: Path) -> None:
    whole = fit(tmp_path / "saved.ckpt")
    assert fit(tmp_path / "again.ckpt", tmp_path / "saved.ckpt") == whole[10:]
    data = Phrases()
    data.setup("fit")
    batches = len(data.train_dataloader())
    assert 10 % batches > 0
    assert sorted(row for rows in whole[:batches] for row in rows) == list(range(40))


def test_overfitting_repeats_the_same_batches(tmp_path: Path) -> None:
    seen = fit(tmp_path / "saved.ckpt", overfit_batches=2)
    assert seen == seen[:2] * 10
