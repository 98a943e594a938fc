"""The loader's position, its errors and its random numbers."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from torch.utils.data import get_worker_info

from equipoise.data.loading import Batch, BatchLoader
from equipoise.data.sampling import BatchIndex, OrderedIndices, Shard, ShuffledIndices
from equipoise.errors import DamagedRecord, UserError


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
from tests.data.test_loading import loader
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


TOO_SMALL = r"/dev/shm, of \d+ MB, is too small .* or set task\.num_workers=0"


class Noise:
    """Images of 600 kB, and labels of a few bytes; in a worker no more than `room` bytes fit."""

    def __init__(self, room: int | None) -> None:
        self.room = room

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: BatchIndex) -> Batch:
        if self.room is not None and get_worker_info() is not None:
            # Shared memory is made of files, and the system refuses those beyond this size.
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.room, resource.RLIM_INFINITY))
        images = [torch.full((3, 224, 224), float(row)) for row in index.rows]
        return {"image": torch.stack(images), "label": index.rows % 3, "index": index.rows}


def noise_loader(num_workers: int, room: int | None = None) -> BatchLoader:
    indices = OrderedIndices(24, 4, Shard())
    return BatchLoader(Noise(room), indices, seed=0, num_workers=num_workers)


def assert_same(batches: Sequence[Batch], expected: Sequence[Batch]) -> None:
    for batch, other in zip(batches, expected, strict=True):
        assert batch.keys() == other.keys()
        assert all(torch.equal(batch[name], other[name]) for name in batch)
        assert all(batch[name].dtype == other[name].dtype for name in batch)


def test_what_fits_goes_through_shared_memory() -> None:
    batches = noise_loader(1)
    loaded = list(batches)
    batches.shut_down()
    assert all(batch["image"].is_shared() for batch in loaded)
    assert_same(loaded, list(noise_loader(0)))


@pytest.mark.parametrize("room", [0, 100_000])
def test_what_does_not_fit_goes_through_a_pipe(room: int) -> None:
    batches = noise_loader(1, room)
    with pytest.warns(UserWarning, match=TOO_SMALL) as said:
        loaded = list(batches)
    batches.shut_down()
    assert len({str(warning.message) for warning in said}) == 1
    assert not any(batch["image"].is_shared() for batch in loaded)
    assert_same(loaded, list(noise_loader(0)))


def test_without_any_shared_memory_no_worker_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(multiprocessing, "Lock", refuse)
    with pytest.warns(UserWarning, match="cannot be used .*without workers"):
        batches = noise_loader(2)
    assert not any(batch["image"].is_shared() for batch in batches)


PROGRAM = """
from tests.data.test_loading import noise_loader
batches = noise_loader(2)
print(sum(len(batch["index"]) for batch in batches))
batches.shut_down()
"""
SHARED_MEMORY_OF = "mount -t tmpfs -o {} tmpfs /dev/shm && exec {} -c '{}'"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize(
    ("options", "said"), [("size=1M", "of 1 MB, is too small"), ("ro", "cannot be used")]
)
def test_a_container_with_little_or_no_shared_memory(options: str, said: str) -> None:
    script = SHARED_MEMORY_OF.format(options, sys.executable, PROGRAM)
    command = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(command, timeout=120, check=False, capture_output=True, text=True)
    if "Operation not permitted" in done.stderr:
        pytest.skip("this machine lets nobody mount")
    assert done.stdout == "24\n"
    assert said in done.stderr


class Damaged:
    """Numbers, of which some cannot be read."""

    def __init__(self, *bad: int) -> None:
        self.bad = set(bad)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: BatchIndex) -> Batch:
        for row in index.rows.tolist():
            if row in self.bad:
                raise DamagedRecord("number", f"number {row}", "it is odd", "replace it.")
        return {"index": index.rows}


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_records_are_left_out_and_listed(workers: int) -> None:
    skipped: dict[str, str] = {}
    loader = BatchLoader(
        Damaged(1, 7, 8),
        OrderedIndices(12, 4, Shard()),
        seed=0,
        num_workers=workers,
        skipped=skipped,
    )
    with pytest.warns(UserWarning, match="number 1 can no longer be read"):
        rows = [batch["index"].tolist() for batch in loader]
    loader.shut_down()
    assert rows == [[0, 2, 3], [4, 5, 6], [9, 10, 11]]
    assert skipped == {f"number {n}": "it is odd" for n in (1, 7, 8)}


def test_a_damaged_record_ends_a_run_that_may_lose_none() -> None:
    loader = BatchLoader(Damaged(5), OrderedIndices(12, 4, Shard()), seed=0, num_workers=0)
    with pytest.raises(UserError, match=r"The number number 5 cannot be decoded \(it is odd\)"):
        list(loader)


@pytest.mark.filterwarnings("ignore:number")
def test_a_batch_of_which_nothing_is_left_ends_the_run() -> None:
    loader = BatchLoader(
        Damaged(4, 5, 6, 7), OrderedIndices(12, 4, Shard()), seed=0, num_workers=0, skipped={}
    )
    with pytest.raises(UserError, match="None of the 4 records of a batch can be read"):
        list(loader)


@pytest.mark.parametrize("taken", [1, 3])
def test_a_killed_worker_costs_no_batch(taken: int) -> None:
    # Sixty batches: many more than two workers have ready before they are killed.
    loader = BatchLoader(Damaged(), OrderedIndices(60, 1, Shard()), seed=0, num_workers=2)
    batches = iter(loader)
    rows = [row for _ in range(taken) for row in next(batches)["index"].tolist()]
    for worker in loader._iterator._workers:  # type: ignore[attr-defined]
        worker.kill()
    with pytest.warns(UserWarning, match="was ended from outside"):
        rest = list(batches)
    loader.shut_down()
    assert rows + [row for batch in rest for row in batch["index"].tolist()] == list(range(60))


def test_a_worker_that_is_killed_while_batches_are_pinned_is_replaced() -> None:
    def fails() -> None:
        raise RuntimeError("Pin memory thread exited unexpectedly")  # as on a GPU

    loader = BatchLoader(Damaged(), OrderedIndices(12, 4, Shard()), seed=0, num_workers=1)
    batches = iter(loader)
    rows = next(batches)["index"].tolist()
    loader._iterator._get_data = fails  # type: ignore[attr-defined]
    loader._iterator._workers[0].kill()  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="was ended from outside"):
        rows += [row for batch in batches for row in batch["index"].tolist()]
    loader._iterator._get_data = fails  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="Pin memory"):  # and no worker has ended
        list(loader)
    loader.shut_down()
    assert rows == list(range(12))
