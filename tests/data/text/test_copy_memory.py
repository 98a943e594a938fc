"""The copy-memory problem: its sequences, and what can be known without memory."""

from __future__ import annotations

import math

import pytest
import torch

from equipoise.data.text.copy_memory import CopyMemory
from equipoise.errors import UserError


def test_sequences_ask_for_the_symbols_after_the_delay() -> None:
    data = CopyMemory(length=30, batch_size=4, train_size=8)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    tokens, targets = batch["tokens"], batch["targets"]
    assert tokens.shape == targets.shape == (4, 50)
    symbols = tokens[:, :10]
    assert ((symbols >= 1) & (symbols <= 8)).all()
    assert (tokens[:, 10:39] == 0).all()
    assert (tokens[:, 39:] == 9).all()
    assert (targets[:, :40] == 0).all()
    assert torch.equal(targets[:, 40:], symbols)
    assert batch["start"]


def test_every_batch_starts_anew() -> None:
    data = CopyMemory(length=5, batch_size=4, train_size=9)
    data.setup("fit")
    assert [bool(batch["start"]) for batch in data.train_dataloader()] == [True] * 3


def test_sequences_are_drawn_by_the_seed_and_differ_between_splits() -> None:
    def symbols(seed: int, name: str) -> torch.Tensor:
        data = CopyMemory(seed=seed, train_size=50, val_size=50, test_size=50)
        data.setup()
        return data.splits[name].symbols

    assert torch.equal(symbols(0, "train"), symbols(0, "train"))
    assert not torch.equal(symbols(0, "train"), symbols(1, "train"))
    assert not torch.equal(symbols(0, "train"), symbols(0, "test"))


def test_the_loss_without_memory_is_the_published_one() -> None:
    assert CopyMemory(length=400).memoryless_loss == pytest.approx(0.0495, abs=1e-4)
    assert CopyMemory(length=100).facts("test") == {"memoryless_loss": 10 * math.log(8) / 120}


def test_the_vocabulary_is_known() -> None:
    assert CopyMemory().inspect() == {"vocabulary": 10}
    with pytest.raises(
        UserError, match="copy_memory has 10 symbols, but the model was made for 50"
    ):
        CopyMemory(vocabulary=50)


def test_a_delay_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"task.length is 0: set it to 1 or more"):
        CopyMemory(length=0)
