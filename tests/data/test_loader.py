"""The loader's position, its errors and its random numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch

from equipoise.data.indices import BatchIndex, Shard, ShuffledIndices
from equipoise.data.loader import Batch, BatchLoader
from equipoise.errors import UserError


class Numbers:
    """A hundred samples that are their own index; row `broken` cannot be read."""

    def __init__(self, broken: int = -1) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: BatchIndex) -> Batch:
        if (index.rows == self.broken).any():
            raise UserError(f"The image {self.broken} is damaged.")
        return {"index": index.rows, "epoch": torch.full_like(index.rows, index.epoch)}


class Signalled(Numbers):
    """Each batch is preceded by a signal, as from a terminal or a scheduler to all processes."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self.number = number

    def __getitem__(self, index: BatchIndex) -> Batch:
        os.kill(os.getpid(), self.number)
        return super().__getitem__(index)


def loader(num_workers: int = 0, broken: int = -1) -> BatchLoader:
    indices = ShuffledIndices(100, 16, 0, Shard())
    return BatchLoader(Numbers(broken), indices, seed=0, num_workers=num_workers)


def rows(batches: list[Batch]) -> list[list[int]]:
    return [batch["index"].tolist() for batch in batches]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_the_main_process(number: signal.Signals) -> None:
    """It finishes its step and saves, for which it needs what they are about to hand over."""
    indices = ShuffledIndices(100, 16, 0, Shard())
    batches = BatchLoader(Signalled(number), indices, seed=0, num_workers=1)
    assert len(rows(list(batches))) == 7
    batches.shut_down()


def set_epoch(of: BatchLoader, epoch: int) -> None:
    _set_sampler_epoch(of, epoch)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("epoch", [0, 3])
def test_a_restored_position_yields_the_rest_of_the_epoch_once(
    num_workers: int, epoch: int
) -> None:
    whole = loader()
    set_epoch(whole, epoch)
    expected = rows(list(whole))
    interrupted = loader(num_workers)
    set_epoch(interrupted, epoch)
    iterator = iter(interrupted)
    taken = [next(iterator) for _ in range(3)]
    state = interrupted.state_dict()
    assert state == {"epoch": epoch, "batch": 3}

    resumed = loader(num_workers)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    set_epoch(resumed, epoch)
    assert len(resumed) == len(expected) == 7
    rest = list(resumed)
    assert rows(taken) + rows(rest) == expected
    assert all((batch["epoch"] == epoch).all() for batch in rest)
    assert rows(list(resumed)) == expected


def test_a_new_epoch_begins_at_its_first_batch() -> None:
    resumed = loader()
    resumed.load_state_dict({"epoch": 0, "batch": 7})
    set_epoch(resumed, 1)
    assert resumed.state_dict() == {"epoch": 1, "batch": 0}
    assert len(list(resumed)) == 7
    assert resumed.state_dict() == {"epoch": 1, "batch": 7}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_iterating_leaves_the_global_random_numbers_alone(num_workers: int) -> None:
    before = torch.get_rng_state()
    list(loader(num_workers))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_arrives_as_it_was_written(num_workers: int) -> None:
    with pytest.raises(UserError) as caught:
        list(loader(num_workers, broken=40))
    assert str(caught.value) == "The image 40 is damaged."


ABANDONS_ITS_WORKERS = """
from tests.data.test_loader import loader
batches = iter(loader(num_workers=1))
next(batches)
print("done", flush=True)
"""


def test_a_program_ends_that_abandons_an_epoch() -> None:
    """The workers ignore the signal by which Python ends what is left of them."""
    program = [sys.executable, "-c", ABANDONS_ITS_WORKERS]
    ended = subprocess.run(program, timeout=120, check=True, capture_output=True, text=True)
    assert ended.stdout == "done\n"
    assert ended.stderr == ""
