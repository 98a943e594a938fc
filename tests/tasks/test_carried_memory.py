"""Which memory a batch continues, and for how long a model has another length of it."""

from __future__ import annotations

import pytest
import torch
from recurrent import Recurrent
from torch import nn

from equipoise.tasks.carried_memory import Carried, carried_into, memory_length

KEPT = {"train": Carried(2, (torch.ones(2, 3),))}


def batch(streams: int = 2, start: bool = False) -> dict[str, torch.Tensor]:
    return {"tokens": torch.zeros(streams, 4, dtype=torch.long), "start": torch.tensor(start)}


def test_a_batch_continues_the_memory_of_its_stage_and_streams() -> None:
    assert carried_into(KEPT, "train", batch()) is KEPT["train"].memory
    assert carried_into(KEPT, "val", batch()) is None
    assert carried_into(KEPT, "train", batch(start=True)) is None
    assert carried_into(KEPT, "train", batch(streams=1)) is None


def test_the_length_of_memory_is_put_back_whatever_happens() -> None:
    model = Recurrent(3)
    with pytest.raises(RuntimeError, match="with 7"):
        fail_with_memory(model, 7)
    assert model.memory_length == 3
    with memory_length(model, None):
        assert model.memory_length == 3


def fail_with_memory(model: Recurrent, length: int) -> None:
    with memory_length(model, length):
        raise RuntimeError(f"with {model.memory_length}")


def test_a_model_without_a_length_of_memory_keeps_what_it_has() -> None:
    model = nn.Linear(1, 1)
    with memory_length(model, 7):
        assert not hasattr(model, "memory_length")
