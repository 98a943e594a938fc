"""Decoded pictures that are kept in memory if the whole set of them fits a limit.

Worker processes share them: they lie in memory of the main process that the workers inherit, so
nothing is copied, and what one worker has decoded no other decodes again. The memory is not taken
from /dev/shm, which is small in containers.
"""

from __future__ import annotations

import logging
import mmap
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

LOG = logging.getLogger(__name__)
MIB = 2**20
SAMPLE = 64
"""Number of pictures from which the memory needed for all is estimated."""
LONGEST_SHAPE = 3
SLACK = 1.2
"""How many times too large that estimate may be."""
USED, COUNT, CLOSED = range(3)


class KeptPictures:
    """uint8 pictures (C, H, W) of any size, by row; each is read once if all of them fit.

    read: returns the picture of a row, the same each time. The first 64 pictures show whether all
    `rows` of them are likely to fit into `limit` bytes: if not, no more are kept, and others are
    read anew each time. Nothing is allocated before the first is kept.
    """

    def __init__(self, read: Callable[[int], Tensor], rows: int, limit: int) -> None:
        self.read = read
        self.rows = rows
        self.limit = limit
        self._memory = _memory(rows, limit) if limit and rows else None

    def __getitem__(self, row: int) -> Tensor:
        """The picture of a row, which must not be modified."""
        if self._memory is None:
            return self.read(row)
        kept = self._memory.get(row)
        if kept is None:
            kept = self.read(row)
            self._memory.offer(row, kept)
        return kept

    @property
    def kept(self) -> int:
        """How many pictures all processes together keep at the moment."""
        return 0 if self._memory is None else int(self._memory.state[COUNT])

    def __getstate__(self) -> dict[str, Any]:
        """What a process that inherits no memory receives: it keeps its own pictures."""
        return {"read": self.read, "rows": self.rows, "limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class _SharedMemory:
    """Pictures one after another, with the offset and shape of each; for forked processes.

    The system allocates pages only where something is written, so the unused part costs nothing.
    """

    def __init__(self, rows: int, limit: int) -> None:
        self.rows = rows
        self.pixels = torch.frombuffer(mmap.mmap(-1, limit), dtype=torch.uint8)
        self.places = _numbers(rows * (1 + LONGEST_SHAPE)).view(rows, 1 + LONGEST_SHAPE)
        self.state = _numbers(3)
        self.writing = _lock()

    def get(self, row: int) -> Tensor | None:
        """The picture of a row, without a copy; None if it is not kept."""
        end, *shape = self.places[row].tolist()
        if end == 0:
            return None
        size = shape[0] * shape[1] * shape[2]
        return self.pixels[end - size : end].view(shape)

    def offer(self, row: int, picture: Tensor) -> None:
        """Keep the picture, unless there is no space, or another process is writing just now."""
        if self.state[CLOSED] or picture.dtype != torch.uint8 or picture.ndim != LONGEST_SHAPE:
            return
        with self.writing() as allowed:
            if allowed and self.places[row, 0] == 0:
                self._keep(row, picture)

    def _keep(self, row: int, picture: Tensor) -> None:
        used, count, _ = self.state.tolist()
        end = used + picture.numel()
        expected = end / (count + 1) * self.rows
        too_many = count + 1 >= SAMPLE and expected > SLACK * len(self.pixels)
        if end > len(self.pixels) or too_many:
            self.state[CLOSED] = 1
            return
        self.pixels[used:end] = picture.reshape(-1)
        self.places[row, 1:] = torch.tensor(picture.shape)
        self.places[row, 0] = end  # last: from here on other processes read it
        self.state[:CLOSED] = torch.tensor([end, count + 1])


def _memory(rows: int, limit: int) -> _SharedMemory | None:
    """None if the system does not grant that much memory."""
    try:
        return _SharedMemory(rows, limit)
    except OSError as error:
        LOG.info("No memory to keep %d pictures in: %s", rows, error)
        return None


def _numbers(count: int) -> Tensor:
    return torch.frombuffer(mmap.mmap(-1, 8 * count), dtype=torch.int64)


def _lock() -> Callable[[], AbstractContextManager[bool]]:
    """A lock that nobody waits for: a process that fails to take it keeps its picture next time.

    So a worker that is killed while holding it blocks none of the others. Where processes
    cannot share a lock there are no workers.
    """
    try:
        lock = multiprocessing.Lock()
    except OSError:
        return _always

    @contextmanager
    def tried() -> Iterator[bool]:
        allowed = lock.acquire(block=False)
        try:
            yield allowed
        finally:
            if allowed:
                lock.release()

    return tried


@contextmanager
def _always() -> Iterator[bool]:
    yield True
