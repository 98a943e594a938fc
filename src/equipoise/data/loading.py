"""Loading whole batches: a position that a checkpoint restores, and errors from workers."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from equipoise.data.sampling import BatchIndex, EpochIndices, stream
from equipoise.errors import DamagedRecord, UserError

OF_A_DEAD_WORKER = (RuntimeError, ConnectionError, EOFError, FileNotFoundError)
"""How fetching a batch can fail whose worker has ended, before or after it announced the batch.

Which of them depends on where torch notices it: RuntimeError has several messages, and another one
where batches are pinned, because then the thread that pins them fails first.
"""
SHARED_MEMORY = Path("/dev/shm")

SKIPPED = "skipped"
"""The key under which a batch on its way lists the rows of records that could not be read."""

Batch = dict[str, Tensor]


class BatchDataset(Protocol):
    """A split that is read a whole batch at a time."""

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def __getitem__(self, index: BatchIndex) -> Batch:
        """The samples that `index` requests."""
        ...


class Position(NamedTuple):
    """How many batches of which epoch have been handed out."""

    epoch: int
    batch: int


class ResumableBatches(Sampler[BatchIndex]):
    """The requests for the batches of an epoch, from the batch that `start` names, once.

    `sampler` has the same name as in torch's BatchSampler: Lightning looks there for `set_epoch`.
    """

    def __init__(self, sampler: EpochIndices) -> None:
        self.sampler = sampler
        self.start = Position(0, 0)

    def first(self) -> Position:
        """Where the next iteration begins; ignores a start within another epoch."""
        epoch = self.sampler.epoch
        return self.start if self.start.epoch == epoch else Position(epoch, 0)

    def __len__(self) -> int:
        """The number of batches of a whole epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[BatchIndex]:
        """Yield the remaining requests of the current epoch."""
        epoch, skipped = self.first()
        self.start = Position(epoch, 0)
        for rows in self.sampler.batches()[skipped:]:
            yield BatchIndex(epoch, rows)


class BatchLoader:
    """An iterable of batches that Lightning recognises as stateful: it resumes within an epoch.

    It wraps a DataLoader instead of being one, so that Lightning never rebuilds it around another
    sampler. Iterating draws from its own generator, never from torch's global one. A UserError
    keeps its original message, even if it comes from a worker process. skipped: the list to which
    records that cannot be read are added, by place, with the reason; batches come without them.
    None: the first of them ends the run. pin_memory: copy each batch to where a GPU fetches it
    faster; not for batches that stay on the host.
    """

    def __init__(
        self,
        dataset: BatchDataset,
        sampler: EpochIndices,
        *,
        seed: int,
        num_workers: int,
        pin_memory: bool = True,
        skipped: dict[str, str] | None = None,
    ) -> None:
        if skipped is not None:
            dataset = Sparing(dataset)
        self.skipped = skipped
        self.batch_sampler = ResumableBatches(sampler)
        self.position = Position(0, 0)
        self._dataset: BatchDataset = dataset
        num_workers = usable_workers(num_workers)
        self._loader: DataLoader[Batch | PickledBatch | UserError] = DataLoader(
            _ErrorsAsValues(dataset),
            batch_size=None,
            sampler=self.batch_sampler,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_leave_signals_to_the_main_process,
            pin_memory=pin_memory and torch.cuda.is_available(),
            generator=stream(seed),
        )
        self.samples = len(dataset)
        _loaders.add(self)

    def __len__(self) -> int:
        """The number of batches of a whole epoch."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the remaining batches of the current epoch.

        Nothing happens before the first batch is requested: Lightning creates the iterator first
        and sets the epoch afterwards.
        """
        self.position = self.batch_sampler.first()
        batches = self._by_workers() if self._loader.num_workers else self._read_here()
        for batch in batches:
            if isinstance(batch, UserError):
                self.shut_down()
                raise batch
            self.position = Position(self.position.epoch, self.position.batch + 1)
            yield self._without_skipped(received(batch))

    def _without_skipped(self, batch: Batch) -> Batch:
        """The batch, after recording which of its samples are missing."""
        rows = batch.pop(SKIPPED, None) if self.skipped is not None else None
        if rows is not None and self.skipped is not None:
            assert isinstance(self._dataset, Sparing)
            known = len(self.skipped)
            self.skipped |= self._dataset.unreadable(BatchIndex(self.position.epoch, rows))
            if known == 0:
                place, reason = next(iter(self.skipped.items()))
                warnings.warn(
                    f"{place} can no longer be read ({reason}): the run continues without it, and "
                    "metrics.json lists all such",
                    stacklevel=2,
                )
        return batch

    def _by_workers(self) -> Iterator[Batch | PickledBatch | UserError]:
        """The batches of the workers; if one is ended from outside, new ones continue in its place.

        What a batch holds does not depend on who loads it, so nothing is lost. Raises UserError if
        that happens again before any batch has come.
        """
        lost_at = None
        while True:
            try:
                with _no_word_of_children():
                    batches = iter(self._loader)
                yield from batches
                return
            except OF_A_DEAD_WORKER as error:
                if not self._lost_a_worker():
                    raise
                self.shut_down()
                if self.position == lost_at:
                    raise UserError(
                        "The worker processes that load data are repeatedly ended from outside, "
                        "perhaps for lack of memory: set a smaller task.num_workers or "
                        "task.batch_size."
                    ) from error
                lost_at = self.batch_sampler.start = self.position
                warnings.warn(
                    "a worker process that loads the data was ended from outside, perhaps for lack "
                    "of memory: others continue with its batch, and nothing is lost",
                    stacklevel=2,
                )

    def _lost_a_worker(self) -> bool:
        """Whether a worker has ended; otherwise the error comes from the data."""
        return bool(wait([w.sentinel for w in getattr(self._iterator, "_workers", ())], timeout=1))

    def _read_here(self) -> Iterator[Batch]:
        """The batches without worker processes, and so without a DataLoader's work for them."""
        for index in self.batch_sampler:
            batch = self._dataset[index]
            yield (
                {n: t.pin_memory() for n, t in batch.items()} if self._loader.pin_memory else batch
            )

    def shut_down(self) -> None:
        """End the workers, for which garbage collection would wait; new ones start when needed."""
        if isinstance(self._iterator, _MultiProcessingDataLoaderIter):
            workers = list(self._iterator._workers)
            self._iterator._shutdown_workers()
            for worker in workers:  # one may be waiting for a lock that a killed one held
                if worker.is_alive():
                    worker.kill()
        self._iterator = None

    @property
    def _iterator(self) -> object:
        """The iterator that owns the workers, under the name that Lightning uses to end them."""
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: _MultiProcessingDataLoaderIter | None) -> None:
        self._loader._iterator = iterator

    def state_dict(self) -> dict[str, int]:
        """The epoch and how many of its batches have been handed out."""
        epoch = self.batch_sampler.sampler.epoch
        current = self.position if self.position.epoch == epoch else Position(epoch, 0)
        return current._asdict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next iteration of that epoch begin after the batches already handed out."""
        self.go_to(state_dict["epoch"], state_dict["batch"])

    def go_to(self, epoch: int, batch: int) -> None:
        """Let the next iteration of epoch `epoch` begin after its first `batch` batches."""
        self.position = Position(epoch, batch)
        self.batch_sampler.start = self.position
        self.batch_sampler.sampler.epoch = epoch


_loaders: WeakSet[BatchLoader] = WeakSet()


@atexit.register
def _shut_down_all() -> None:
    """End the remaining workers when the program ends.

    Python would send them the signal that they ignore, and wait. This runs earlier, while torch can
    still end them, because it was registered after both.
    """
    for loader in tuple(_loaders):
        loader.shut_down()


def _leave_signals_to_the_main_process(worker: int) -> None:
    """Ignore what a terminal or a scheduler sends to the whole process group.

    The main process still needs batches to finish its step; it ends its workers itself, and a
    worker that has lost the main process ends within seconds.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _no_word_of_children() -> Iterator[None]:
    """Keep torch's handler for the end of a child process from being installed inside.

    It would raise the end of a worker anywhere in the program; the code that waits for a batch
    notices it within seconds anyway.
    """
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


@dataclass(eq=False)
class Sparing:
    """A split without the records that cannot be read; the batch lists their rows under SKIPPED.

    Raises UserError if nothing is left of a batch.
    """

    content: BatchDataset

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.content)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """The samples of `index` that can be read."""
        try:
            return self.content[index]
        except DamagedRecord as error:
            bad = [self._fault(index.epoch, row) is not None for row in index.rows]
            lost = torch.tensor(bad)
            if lost.all():
                raise UserError(
                    f"None of the {len(bad)} records of a batch can be read: {error}"
                ) from error
        return {**self[BatchIndex(index.epoch, index.rows[~lost])], SKIPPED: index.rows[lost]}

    def unreadable(self, index: BatchIndex) -> dict[str, str]:
        """Which of some records cannot be read, and why, by their places."""
        faults = {int(row): self._fault(index.epoch, row) for row in index.rows}
        gone = "it could not be read at that moment"
        return {
            fault.place if fault else f"the record {row}": fault.reason if fault else gone
            for row, fault in faults.items()
        }

    def _fault(self, epoch: int, row: Tensor) -> DamagedRecord | None:
        try:
            self.content[BatchIndex(epoch, row.reshape(1))]
        except DamagedRecord as error:
            return error
        return None


class _ErrorsAsValues(Dataset["Batch | PickledBatch | UserError"]):
    """A UserError as a value: raised in a worker, it would arrive with a traceback in it."""

    def __init__(self, dataset: BatchDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: BatchIndex) -> Batch | PickledBatch | UserError:
        try:
            return handed_over(self.dataset[index])
        except UserError as error:
            return error


# How a batch gets from a worker process to the main one, even if shared memory is small.
#
# torch moves the tensors of a batch into shared memory, which lies in /dev/shm. Containers often
# have 64 MB of it. A tensor that does not fit is lost in a thread of the worker, and the main
# process waits for the batch forever. So the worker moves tensors itself, and if that fails the
# batch is sent like any other object: pickled, through a pipe.


@dataclass
class PickledBatch:
    """A batch as arrays, which pickle directly; tensors would go through shared memory."""

    arrays: dict[str, np.ndarray[Any, Any]]


def usable_workers(number: int) -> int:
    """The number, or 0, with a warning, if processes cannot communicate at all."""
    if number == 0:
        return 0
    try:
        multiprocessing.Lock()
    except OSError as error:
        warnings.warn(
            f"{SHARED_MEMORY} cannot be used ({error.strerror}), so batches are loaded "
            "without workers, which is slower: give this machine shared memory, or set "
            "task.num_workers=0",
            stacklevel=2,
        )
        return 0
    return number


def handed_over(batch: Batch) -> Batch | PickledBatch:
    """The batch, in shared memory if this is a worker and it fits, otherwise as arrays."""
    if get_worker_info() is None:
        return batch
    try:
        return {name: tensor.share_memory_() for name, tensor in batch.items()}
    except RuntimeError:  # received() warns in the main process
        return PickledBatch({name: tensor.numpy() for name, tensor in batch.items()})


def received(batch: Batch | PickledBatch) -> Batch:
    """The tensors of a batch; warns, once per process, if they did not fit."""
    if not isinstance(batch, PickledBatch):
        return batch
    warnings.warn(
        f"{SHARED_MEMORY}{_size()} is too small for the batches of the worker processes, which now "
        "go through pipes and so take longer: enlarge it (docker run --shm-size=8g), or set "
        "task.num_workers=0",
        stacklevel=2,
    )
    return {name: torch.from_numpy(array) for name, array in batch.arrays.items()}


def _size() -> str:
    try:
        return f", of {shutil.disk_usage(SHARED_MEMORY).total / 2**20:.0f} MB,"
    except OSError:
        return ""
