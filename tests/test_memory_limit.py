"""Networks that the machine cannot hold are refused before memory is asked for."""

from __future__ import annotations

import pytest
import torch

from equipoise import build
from equipoise.errors import UserError
from equipoise.memory import free_memory
from equipoise.memory_limit import MemoryLimit


@pytest.mark.parametrize(
    "typed",
    [
        ("model.channels=[1000000,1000000]", "model.head_channels=[2,4]"),
        ("task=python_docs", "model.width=1000000"),
        ("task=python_docs", "model.inner_width=1000000", "model.width=100000"),
        ("task=copy_memory", "model=deq_trellisnet", "model.hidden_width=1000000"),
        ("task.classes=1000000", "model.final_channels=1000000"),
    ],
)
def test_a_network_beyond_the_memory_is_refused(typed):
    with pytest.raises(UserError, match=r"model would need [\d,]+ GiB of memory"):
        build(*typed)


@pytest.mark.parametrize(
    "make",
    [torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn,
     lambda *size: torch.full(size, 1.0), lambda *size: torch.nn.Linear(*size)],
)  # fmt: skip
def test_every_way_to_make_a_tensor_is_counted(make):
    with MemoryLimit("part"):
        make(3, 5)
    with pytest.raises(UserError, match="part would need"), MemoryLimit("part"):
        make(10**6, 10**6)


def test_small_tensors_add_up():
    limit = MemoryLimit("part")
    limit.free = 3 * 4 * 100
    with limit:
        torch.empty(60)
        with pytest.raises(UserError, match="part would need"):
            torch.empty(60)


def test_the_free_memory_is_that_of_the_machine_or_less():
    assert 0 < free_memory() < 2**50
