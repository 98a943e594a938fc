"""Batches of worker processes where shared memory is small, or is none."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from torch.utils.data import get_worker_info

from equipoise.data.indices import BatchIndex, OrderedIndices, Shard
from equipoise.data.loader import Batch, BatchLoader

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


def loader(num_workers: int, room: int | None = None) -> BatchLoader:
    indices = OrderedIndices(24, 4, Shard())
    return BatchLoader(Noise(room), indices, seed=0, num_workers=num_workers)


def assert_same(batches: Sequence[Batch], expected: Sequence[Batch]) -> None:
    for batch, other in zip(batches, expected, strict=True):
        assert batch.keys() == other.keys()
        assert all(torch.equal(batch[name], other[name]) for name in batch)
        assert all(batch[name].dtype == other[name].dtype for name in batch)


def test_what_fits_goes_through_shared_memory() -> None:
    batches = loader(1)
    loaded = list(batches)
    batches.shut_down()
    assert all(batch["image"].is_shared() for batch in loaded)
    assert_same(loaded, list(loader(0)))


@pytest.mark.parametrize("room", [0, 100_000])
def test_what_does_not_fit_goes_through_a_pipe(room: int) -> None:
    batches = loader(1, room)
    with pytest.warns(UserWarning, match=TOO_SMALL) as said:
        loaded = list(batches)
    batches.shut_down()
    assert len({str(warning.message) for warning in said}) == 1
    assert not any(batch["image"].is_shared() for batch in loaded)
    assert_same(loaded, list(loader(0)))


def test_without_any_shared_memory_no_worker_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(multiprocessing, "Lock", refuse)
    with pytest.warns(UserWarning, match="cannot be used .*without workers"):
        batches = loader(2)
    assert not any(batch["image"].is_shared() for batch in batches)


PROGRAM = """
from tests.data.test_batch_transport import loader
batches = loader(2)
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
