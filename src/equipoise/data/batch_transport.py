"""How a batch gets from a worker process to the main one, also where shared memory is small.

torch moves the tensors of a batch into shared memory, which lies in /dev/shm. Containers often have
64 MB of it. What does not fit is lost there in a thread of the worker, and the main process waits
for the batch for ever. So the worker moves them itself, and where that fails the batch takes the
way of every other object: pickled, through a pipe.
"""

from __future__ import annotations

import multiprocessing
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

SHARED_MEMORY = Path("/dev/shm")

Batch = dict[str, Tensor]


@dataclass
class PickledBatch:
    """A batch as arrays, which pickle as they are; tensors would go through shared memory."""

    arrays: dict[str, np.ndarray[Any, Any]]


def usable_workers(wanted: int) -> int:
    """Return `wanted`, or 0, with a warning, where processes cannot talk to each other at all."""
    if wanted == 0:
        return 0
    try:
        multiprocessing.Lock()
    except OSError as error:
        warnings.warn(
            f"{SHARED_MEMORY} cannot be used ({error.strerror}), so that batches are loaded "
            "without workers, which is slower: give this machine shared memory, or set "
            "task.num_workers=0",
            stacklevel=2,
        )
        return 0
    return wanted


def handed_over(batch: Batch) -> Batch | PickledBatch:
    """Return the batch in shared memory where this is a worker and it fits, else as arrays."""
    if get_worker_info() is None:
        return batch
    try:
        return {name: tensor.share_memory_() for name, tensor in batch.items()}
    except RuntimeError:  # received() tells the main process
        return PickledBatch({name: tensor.numpy() for name, tensor in batch.items()})


def received(batch: Batch | PickledBatch) -> Batch:
    """Return the tensors of a batch; warns, once a process, where they did not fit."""
    if not isinstance(batch, PickledBatch):
        return batch
    warnings.warn(
        f"{SHARED_MEMORY}{_size()} is too small for the batches of the worker processes, which go "
        "through pipes instead, and slower: enlarge it (docker run --shm-size=8g), or set "
        "task.num_workers=0",
        stacklevel=2,
    )
    return {name: torch.from_numpy(array) for name, array in batch.arrays.items()}


def _size() -> str:
    try:
        return f", of {shutil.disk_usage(SHARED_MEMORY).total / 2**20:.0f} MB,"
    except OSError:
        return ""
